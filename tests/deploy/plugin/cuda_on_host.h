// CUDA on a CPU, as far as the plugin's kernels use it, so that they can be tested where there is no GPU.
//
// Every thread of a block is a coroutine that runs until it meets a barrier or a warp instruction. The order in which
// threads run is shuffled all the time, shared memory and the targets of unfinished copies hold NaN, and loads are held
// to the tensors that were announced: a missing barrier, a wait left out or a wrong index shows as a wrong result.
// Timing, memory coalescing and bank conflicts are not modelled. Warp instructions follow the PTX manual's tables.
#ifndef CUDA_ON_HOST_H
#define CUDA_ON_HOST_H

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define threadIdx (::cuda_on_host::Block::now().threads[::cuda_on_host::Block::now().running].index)
#define blockIdx (::cuda_on_host::Block::now().index)
#define blockDim (::cuda_on_host::Block::now().size)
#define gridDim (::cuda_on_host::Block::now().grid)

struct dim3
{
    uint32_t x, y, z;
    explicit dim3(uint32_t x_ = 1, uint32_t y_ = 1, uint32_t z_ = 1)
        : x(x_)
        , y(y_)
        , z(z_)
    {
    }
};

struct alignas(16) uint4
{
    uint32_t x, y, z, w;
};
struct alignas(8) float2
{
    float x, y;
};
struct alignas(16) float4
{
    float x, y, z, w;
};

inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w)
{
    return {x, y, z, w};
}
inline float2 make_float2(float x, float y)
{
    return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}
inline float __uint_as_float(uint32_t bits)
{
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline uint32_t __float_as_uint(float value)
{
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

using cudaError_t = int32_t;
constexpr cudaError_t cudaSuccess = 0;

namespace cuda_on_host
{

[[noreturn]] inline void fail(char const* reason)
{
    std::fprintf(stderr, "cuda_on_host: %s\n", reason);
    std::abort();
}

struct Copy
{
    void* target;
    void const* source;
    bool valid;
};

enum class Wait
{
    kNONE,
    kWARP,
    kBLOCK,
    kDONE
};

struct Thread
{
    static constexpr size_t kSTACK = 128 * 1024;
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kSTACK]};
    dim3 index;
    Wait wait = Wait::kNONE;
    std::vector<Copy> copies;
    void const* row = nullptr; // what this lane shows the others of its warp
    uint32_t a[4] = {}, b[2] = {};
};

struct Range
{
    uint8_t const* begin;
    size_t bytes;
};

struct Block
{
    std::vector<Thread> threads;
    size_t running = 0;
    dim3 index, size, grid;
    ucontext_t scheduler;
    std::vector<uint4> shared;
    std::function<void()> kernel;
    uint32_t random = 1;
    std::vector<Range> allowed;
    std::map<void const*, size_t> sharedLimits; // of kernels that asked for one
    int32_t multiprocessors = 4, sharedBytes = 100 * 1024;
    bool isAmpere = true;

    static Block& now()
    {
        static Block block;
        return block;
    }

    uint32_t draw(uint32_t below)
    {
        random = random * 1664525U + 1013904223U;
        return (random >> 8) % below;
    }

    static void enter()
    {
        Block& block = now();
        block.kernel();
        block.threads[block.running].wait = Wait::kDONE;
        block.yield();
    }

    void yield() { swapcontext(&threads[running].context, &scheduler); }

    void pause(Wait wait)
    {
        threads[running].wait = wait;
        yield();
    }

    bool all(size_t begin, size_t end, Wait wait) const
    {
        for (size_t i = begin; i < end; ++i)
        {
            if (threads[i].wait != wait)
            {
                return false;
            }
        }
        return true;
    }

    void wake(size_t begin, size_t end)
    {
        for (size_t i = begin; i < end; ++i)
        {
            threads[i].wait = Wait::kNONE;
        }
    }

    // Frees whoever waits for a barrier that all have reached; false when nobody can go on.
    bool release()
    {
        bool some = false;
        for (size_t warp = 0; warp < threads.size(); warp += 32)
        {
            if (all(warp, warp + 32, Wait::kWARP))
            {
                wake(warp, warp + 32);
                some = true;
            }
        }
        if (all(0, threads.size(), Wait::kBLOCK))
        {
            wake(0, threads.size());
            some = true;
        }
        return some;
    }

    void run()
    {
        std::vector<size_t> order(threads.size());
        for (size_t i = 0; i < threads.size(); ++i)
        {
            order[i] = i;
            Thread& thread = threads[i];
            thread.index = dim3(static_cast<uint32_t>(i), 0, 0);
            thread.wait = Wait::kNONE;
            getcontext(&thread.context);
            thread.context.uc_stack.ss_sp = thread.stack.get();
            thread.context.uc_stack.ss_size = Thread::kSTACK;
            thread.context.uc_link = nullptr;
            makecontext(&thread.context, &Block::enter, 0);
        }
        do
        {
            for (size_t i = order.size() - 1; i > 0; --i)
            {
                std::swap(order[i], order[draw(static_cast<uint32_t>(i + 1))]);
            }
            for (size_t const i : order)
            {
                if (threads[i].wait == Wait::kNONE)
                {
                    running = i;
                    swapcontext(&scheduler, &threads[i].context);
                }
            }
        } while (release());
        if (!all(0, threads.size(), Wait::kDONE))
        {
            fail("some threads of a block wait for others that never come");
        }
    }

    void checkRead(void const* address, size_t bytes) const
    {
        auto const* const first = static_cast<uint8_t const*>(address);
        for (Range const& range : allowed)
        {
            if (first >= range.begin && first + bytes <= range.begin + range.bytes)
            {
                return;
            }
        }
        if (!allowed.empty())
        {
            fail("a load outside of every tensor");
        }
    }
};

} // namespace cuda_on_host

inline void __syncthreads()
{
    cuda_on_host::Block::now().pause(cuda_on_host::Wait::kBLOCK);
}

template <typename T>
T __ldg(T const* address)
{
    cuda_on_host::Block::now().checkRead(address, sizeof(T));
    return *address;
}

// One thread runs at a time, and none is interrupted.
template <typename T>
T atomicAdd(T* address, T value)
{
    T const before = *address;
    *address = before + value;
    return before;
}
template <typename T>
T atomicOr(T* address, T value)
{
    T const before = *address;
    *address = before | value;
    return before;
}

namespace lstfe
{

struct Half
{
    uint16_t bits;
};
struct Bfloat16
{
    uint16_t bits;
};

inline float widen(Bfloat16 value)
{
    return __uint_as_float(uint32_t{value.bits} << 16);
}

inline void round(float value, Bfloat16& result)
{
    uint32_t const bits = __float_as_uint(value);
    bool const isNan = (bits & 0x7fffffffU) > 0x7f800000U;
    result.bits = static_cast<uint16_t>(isNan ? 0x7fffU : (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

inline float widen(Half value)
{
    uint32_t const sign = uint32_t{value.bits} >> 15 << 31;
    uint32_t const rest = value.bits & 0x7fffU;
    if (rest >= 0x7c00U) // infinity, NaN
    {
        return __uint_as_float(sign | 0x7f800000U | rest << 13);
    }
    float const magnitude = rest < 0x400U ? static_cast<float>(rest) * 0x1p-24F // subnormal
                                          : __uint_as_float((rest << 13) + (112U << 23));
    return sign != 0 ? -magnitude : magnitude;
}

inline void round(float value, Half& result)
{
    uint32_t const bits = __float_as_uint(value);
    uint32_t const rest = bits & 0x7fffffffU;
    uint32_t rounded = 0;
    if (rest > 0x7f800000U)
    {
        rounded = 0x7fffU;
    }
    else if (rest >= 0x477ff000U) // 65520 and more
    {
        rounded = 0x7c00U;
    }
    else if (rest < 0x38800000U) // below 2^-14: adding 1/2 leaves steps of 2^-24
    {
        rounded = __float_as_uint(__uint_as_float(rest) + 0.5F) - 0x3f000000U;
    }
    else
    {
        rounded = (rest + 0xfffU + (rest >> 13 & 1U) - (112U << 23)) >> 13;
    }
    result.bits = static_cast<uint16_t>(rounded | bits >> 31 << 15);
}

template <>
struct Element<Half>
{
    static float load(Half const* address) { return widen(*address); }
    static void store(Half* address, float value) { round(value, *address); }
};

template <>
struct Element<Bfloat16>
{
    static float load(Bfloat16 const* address) { return widen(*address); }
    static void store(Bfloat16* address, float value) { round(value, *address); }
};

template <typename T>
struct Packed
{
    static float2 unpack(uint32_t bits)
    {
        return {widen(T{static_cast<uint16_t>(bits & 0xffffU)}), widen(T{static_cast<uint16_t>(bits >> 16)})};
    }
    static uint32_t pack(float first, float second)
    {
        T low, high;
        round(first, low);
        round(second, high);
        return uint32_t{low.bits} | uint32_t{high.bits} << 16;
    }
};

inline uint8_t* dynamicSharedMemory()
{
    return reinterpret_cast<uint8_t*>(cuda_on_host::Block::now().shared.data());
}

inline int32_t lowestBit(unsigned long long bits)
{
    return __builtin_ctzll(bits);
}

inline uint4 zeroVector()
{
    return {0U, 0U, 0U, 0U};
}

inline void startCopy16(void* shared, void const* global, bool valid)
{
    cuda_on_host::Block& block = cuda_on_host::Block::now();
    if (valid)
    {
        block.checkRead(global, 16);
    }
    std::memset(shared, 0xff, 16);
    block.threads[block.running].copies.push_back({shared, global, valid});
}

inline void waitForCopies()
{
    cuda_on_host::Block& block = cuda_on_host::Block::now();
    auto& copies = block.threads[block.running].copies;
    for (cuda_on_host::Copy const& copy : copies)
    {
        uint4 const value = copy.valid ? *static_cast<uint4 const*>(copy.source) : zeroVector();
        *static_cast<uint4*>(copy.target) = value;
    }
    copies.clear();
}

// PTX ldmatrix.m8n8.x4.b16
inline void loadMatrices(uint32_t (&matrices)[4], void const* shared)
{
    cuda_on_host::Block& block = cuda_on_host::Block::now();
    cuda_on_host::Thread& own = block.threads[block.running];
    size_t const warp = block.running / 32 * 32;
    size_t const lane = block.running % 32;
    if (reinterpret_cast<uintptr_t>(shared) % 16 != 0)
    {
        cuda_on_host::fail("ldmatrix from an address that is no multiple of 16");
    }
    own.row = shared;
    block.pause(cuda_on_host::Wait::kWARP);
    for (size_t i = 0; i < 4; ++i)
    {
        auto const* const row = static_cast<uint32_t const*>(block.threads[warp + 8 * i + lane / 4].row);
        matrices[i] = row[lane % 4];
    }
    block.pause(cuda_on_host::Wait::kWARP);
}

// PTX mma.m16n8k16: a's register is chosen by (k >= 8, row >= 8), b's by k >= 8.
template <typename T>
void multiplyTiles(float (&sums)[4], uint32_t const (&a)[4], uint32_t b0, uint32_t b1)
{
    cuda_on_host::Block& block = cuda_on_host::Block::now();
    cuda_on_host::Thread* const warp = &block.threads[block.running / 32 * 32];
    cuda_on_host::Thread& own = block.threads[block.running];
    size_t const lane = block.running % 32;
    std::memcpy(own.a, a, sizeof own.a);
    own.b[0] = b0;
    own.b[1] = b1;
    block.pause(cuda_on_host::Wait::kWARP);
    for (size_t i = 0; i < 4; ++i)
    {
        size_t const row = lane / 4 + 8 * (i / 2);
        size_t const column = lane % 4 * 2 + i % 2;
        for (size_t k = 0; k < 16; k += 2)
        {
            size_t const pair = k % 8 / 2;
            float2 const left = Packed<T>::unpack(warp[row % 8 * 4 + pair].a[k / 8 * 2 + row / 8]);
            float2 const right = Packed<T>::unpack(warp[column * 4 + pair].b[k / 8]);
            sums[i] += left.x * right.x + left.y * right.y;
        }
    }
    block.pause(cuda_on_host::Wait::kWARP);
}

struct Device
{
    int32_t multiprocessors;
    int32_t sharedBytes;
    bool isAmpere;
};

inline cudaError_t currentDevice(Device& device)
{
    cuda_on_host::Block const& block = cuda_on_host::Block::now();
    device = Device{block.multiprocessors, block.sharedBytes, block.isAmpere};
    return cudaSuccess;
}

template <typename... Parameters>
cudaError_t allowSharedMemory(void (*kernel)(Parameters...), size_t bytes)
{
    cuda_on_host::Block& block = cuda_on_host::Block::now();
    if (bytes > static_cast<size_t>(block.sharedBytes))
    {
        return 1; // cudaErrorInvalidValue
    }
    size_t& limit = block.sharedLimits[reinterpret_cast<void const*>(kernel)];
    if (limit != 0 && limit != bytes)
    {
        cuda_on_host::fail("a kernel's limit of shared memory changes, which launches of other threads rely on");
    }
    limit = bytes;
    return cudaSuccess;
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, uint32_t threads, size_t sharedBytes, void*,
    Arguments const&... arguments)
{
    cuda_on_host::Block& block = cuda_on_host::Block::now();
    auto const asked = block.sharedLimits.find(reinterpret_cast<void const*>(kernel));
    size_t const sharedLimit = asked == block.sharedLimits.end() ? size_t{48} * 1024 : asked->second;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 || threads > 1024
        || sharedBytes > sharedLimit)
    {
        return 9; // cudaErrorInvalidConfiguration
    }
    uint4 const guard{0xfeedU, 0xfeedU, 0xfeedU, 0xfeedU};
    block.grid = grid;
    block.size = dim3(threads);
    block.threads.resize(threads);
    block.kernel = [&]
    {
        kernel(arguments...);
    };
    size_t const vectors = (sharedBytes + 15) / 16;
    for (block.index.z = 0; block.index.z < grid.z; ++block.index.z)
    {
        for (block.index.y = 0; block.index.y < grid.y; ++block.index.y)
        {
            for (block.index.x = 0; block.index.x < grid.x; ++block.index.x)
            {
                block.shared.assign(vectors + 1, uint4{~0U, ~0U, ~0U, ~0U});
                block.shared[vectors] = guard;
                block.run();
                if (std::memcmp(&block.shared[vectors], &guard, sizeof guard) != 0)
                {
                    cuda_on_host::fail("a write past the end of shared memory");
                }
            }
        }
    }
    return cudaSuccess;
}

} // namespace lstfe

//! What the emulated device is, for tests.
extern "C" __attribute__((visibility("default"), used)) inline void cuda_on_host_device(
    int32_t multiprocessors, int32_t sharedBytes, int32_t isAmpere)
{
    cuda_on_host::Block& block = cuda_on_host::Block::now();
    block.multiprocessors = multiprocessors;
    block.sharedBytes = sharedBytes;
    block.isAmpere = isAmpere != 0;
    block.sharedLimits.clear();
}

//! How many blocks the last launch had.
extern "C" __attribute__((visibility("default"), used)) inline int32_t cuda_on_host_blocks()
{
    dim3 const& grid = cuda_on_host::Block::now().grid;
    return static_cast<int32_t>(grid.x * grid.y * grid.z);
}

//! From now on loads must lie in a tensor announced so; null forgets them all.
extern "C" __attribute__((visibility("default"), used)) inline void cuda_on_host_allow(void const* begin, size_t bytes)
{
    auto& allowed = cuda_on_host::Block::now().allowed;
    if (begin == nullptr)
    {
        allowed.clear();
        return;
    }
    allowed.push_back({static_cast<uint8_t const*>(begin), bytes});
}

#endif // CUDA_ON_HOST_H
