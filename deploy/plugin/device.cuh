// The few things of CUDA that the kernels use, each behind one name. Where LSTFE_CUDA_ON_HOST names a header, that
// header provides them instead, so that the same kernels run on a CPU in tests.
#ifndef LSTFE_DEVICE_CUH
#define LSTFE_DEVICE_CUH

#include "plain.h"

#ifdef LSTFE_CUDA_ON_HOST
#include LSTFE_CUDA_ON_HOST
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace lstfe
{

using Half = __half;
using Bfloat16 = __nv_bfloat16;

//! Whether the code being compiled may copy to shared memory without registers, and knows bfloat16 tensor cores.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define LSTFE_AMPERE 0
#else
#define LSTFE_AMPERE 1
#endif

__device__ __forceinline__ uint8_t* dynamicSharedMemory()
{
    extern __shared__ __align__(16) uint8_t bytes[];
    return bytes;
}

__device__ __forceinline__ uint4 zeroVector()
{
    return make_uint4(0U, 0U, 0U, 0U);
}

//! The number of the lowest bit set; there is one.
__device__ __forceinline__ int32_t lowestBit(unsigned long long bits)
{
    return __ffsll(static_cast<long long>(bits)) - 1;
}

//! Starts copying 16 bytes from global to shared memory; zeros instead where not `valid`.
__device__ __forceinline__ void startCopy16(void* shared, void const* global, bool valid)
{
#if LSTFE_AMPERE
    uint32_t const target = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    int32_t const bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(target), "l"(global), "r"(bytes) : "memory");
#else
    *static_cast<uint4*>(shared) = valid ? __ldg(static_cast<uint4 const*>(global)) : zeroVector();
#endif
}

//! Waits for the copies this thread started. Other threads see them after the next __syncthreads().
__device__ __forceinline__ void waitForCopies()
{
#if LSTFE_AMPERE
    asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;\n" ::: "memory");
#endif
}

//! Loads four 8 x 8 matrices of 16-bit elements; lanes 8 i .. 8 i + 7 give the addresses of matrix i's rows. Lane l
//! gets elements 2 (l % 4) and the next of row l / 4 of each.
__device__ __forceinline__ void loadMatrices(uint32_t (&matrices)[4], void const* shared)
{
    uint32_t const row = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
        : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
        : "r"(row)
        : "memory");
}

//! sums (16 x 8) += a (16 x 16) b (16 x 8), spread over the warp as PTX's mma.m16n8k16 has it.
template <typename T>
__device__ __forceinline__ void multiplyTiles(
    float (&sums)[4], uint32_t const (&a)[4], uint32_t const b0, uint32_t const b1);

template <>
__device__ __forceinline__ void multiplyTiles<Half>(
    float (&sums)[4], uint32_t const (&a)[4], uint32_t const b0, uint32_t const b1)
{
#if LSTFE_AMPERE
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};\n"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else // Turing: the same in two halves
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};\n"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};\n"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

template <>
__device__ __forceinline__ void multiplyTiles<Bfloat16>(
    float (&sums)[4], uint32_t const (&a)[4], uint32_t const b0, uint32_t const b1)
{
#if LSTFE_AMPERE
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};\n"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    __trap(); // the launcher never gets here: Turing has no bfloat16 tensor cores
#endif
}

//! Two neighbouring elements from and to 32 bits, the first in the low half.
template <typename T>
struct Packed;

template <>
struct Packed<Half>
{
    __device__ __forceinline__ static float2 unpack(uint32_t bits)
    {
        return __half22float2(*reinterpret_cast<__half2*>(&bits));
    }
    __device__ __forceinline__ static uint32_t pack(float first, float second)
    {
        __half2 const pair = __floats2half2_rn(first, second);
        return *reinterpret_cast<uint32_t const*>(&pair);
    }
};

template <>
struct Packed<Bfloat16>
{
    __device__ __forceinline__ static float2 unpack(uint32_t bits)
    {
        return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000U));
    }
    __device__ __forceinline__ static uint32_t pack(float first, float second)
    {
        __nv_bfloat162 const pair = __floats2bfloat162_rn(first, second);
        return *reinterpret_cast<uint32_t const*>(&pair);
    }
};

template <>
struct Element<Half>
{
    LSTFE_HD static float load(Half const* address) { return __half2float(*address); }
    LSTFE_HD static void store(Half* address, float value) { *address = __float2half_rn(value); }
};

template <>
struct Element<Bfloat16>
{
    LSTFE_HD static float load(Bfloat16 const* address) { return __bfloat162float(*address); }
    LSTFE_HD static void store(Bfloat16* address, float value) { *address = __float2bfloat16_rn(value); }
};

//! What a launch depends on.
struct Device
{
    int32_t multiprocessors;
    int32_t sharedBytes; //!< Most dynamic shared memory of one block.
    bool isAmpere;       //!< Or newer.
};

inline cudaError_t currentDevice(Device& device)
{
    int32_t index = 0;
    int32_t major = 0;
    cudaError_t error = cudaGetDevice(&index);
    auto const read = [&](int32_t& value, cudaDeviceAttr attribute)
    {
        error = error == cudaSuccess ? cudaDeviceGetAttribute(&value, attribute, index) : error;
    };
    read(device.multiprocessors, cudaDevAttrMultiProcessorCount);
    read(device.sharedBytes, cudaDevAttrMaxSharedMemoryPerBlockOptin);
    read(major, cudaDevAttrComputeCapabilityMajor);
    device.isAmpere = major >= 8;
    return error;
}

//! Lets blocks of a kernel have more than the 48 KB of dynamic shared memory that need no asking. The limit is the
//! kernel's own, for all threads of the process: ask for the same `bytes` at every launch.
template <typename... Parameters>
cudaError_t allowSharedMemory(void (*kernel)(Parameters...), size_t bytes)
{
    cudaError_t const error = cudaFuncSetAttribute(reinterpret_cast<void const*>(kernel),
        cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int32_t>(bytes));
    return error == cudaSuccess ? error : cudaGetLastError(); // which the next launch would report otherwise
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, uint32_t threads, size_t sharedBytes, void* stream,
    Arguments const&... arguments)
{
    kernel<<<grid, threads, sharedBytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
    return cudaGetLastError();
}

} // namespace lstfe

#endif // LSTFE_CUDA_ON_HOST

namespace lstfe
{

//! The LstfeStatus that says what a launch ended with.
inline int32_t statusOf(cudaError_t error)
{
    return error == cudaSuccess ? LSTFE_OK : LSTFE_CUDA_ERROR + static_cast<int32_t>(error);
}

} // namespace lstfe

#endif // LSTFE_DEVICE_CUH
