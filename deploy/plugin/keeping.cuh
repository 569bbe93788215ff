// The one step of greedy suppression that goes box by box, for 64 boxes at a time.
#ifndef LSTFE_KEEPING_CUH
#define LSTFE_KEEPING_CUH

#include "boxes.h"
#include "device.cuh"

namespace lstfe
{

constexpr int32_t kWORD = 64; //!< Boxes that are decided on together: a bit of a Key each.
constexpr int32_t kMAX_WORDS = kMAX_CANDIDATES / kWORD;

//! Shared memory of the block that keeps.
struct KeepShared
{
    Key dropped[kMAX_WORDS]; //!< By boxes that are kept; bit j of word i is box 64 i + j in the order.
    Key diagonal[kWORD];     //!< Of each of the 64: which later ones of them it overlaps, and itself if it is no box.
    int32_t rows[kWORD];     //!< Which of them are kept, as places in the order.
    int32_t numRows;
};

//! One thread goes through the boxes of a word, of which `left` exist or more: who is not dropped is kept, `room` at
//! most, and drops others of the word.
__device__ __forceinline__ void keepOfWord(KeepShared& shared, int32_t left, int32_t word, int32_t room)
{
    Key alive = ~shared.dropped[word] & (left < kWORD ? (Key{1} << left) - 1U : ~Key{0});
    int32_t number = 0;
    while (alive != 0U && number < room)
    {
        int32_t const bit = lowestBit(alive);
        alive &= alive - 1U;
        Key const overlapped = shared.diagonal[bit];
        if ((overlapped >> bit & 1U) == 0U) // it is a box
        {
            alive &= ~overlapped;
            shared.rows[number++] = word * kWORD + bit;
        }
    }
    shared.numRows = number;
}

} // namespace lstfe

#endif // LSTFE_KEEPING_CUH
