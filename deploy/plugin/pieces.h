// The parts of a workspace.
#ifndef LSTFE_PIECES_H
#define LSTFE_PIECES_H

#include <cstddef>
#include <cstdint>

namespace lstfe
{

//! Hands out pieces of the workspace, each at a multiple of 256 bytes; from null on, it only adds up.
class Pieces
{
public:
    explicit Pieces(void* begin)
        : mBegin(static_cast<uint8_t*>(begin))
    {
    }
    template <typename T>
    T* take(size_t count)
    {
        constexpr size_t kALIGNMENT = 256;
        size_t const offset = mBytes;
        mBytes += (sizeof(T) * count + kALIGNMENT - 1) / kALIGNMENT * kALIGNMENT;
        return mBegin == nullptr ? nullptr : reinterpret_cast<T*>(mBegin + offset);
    }
    size_t bytes() const { return mBytes; }

private:
    uint8_t* mBegin;
    size_t mBytes{0};
};

} // namespace lstfe

#endif // LSTFE_PIECES_H
