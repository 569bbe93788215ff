// One source for host and device: what says so of a function.
#ifndef LSTFE_HOST_DEVICE_H
#define LSTFE_HOST_DEVICE_H

#ifdef __CUDACC__
#define LSTFE_HD __host__ __device__ __forceinline__
#else
#define LSTFE_HD inline
#endif

#endif // LSTFE_HOST_DEVICE_H
