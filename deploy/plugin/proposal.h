// Arithmetic of region proposals, one source for host and device: the order of anchors, their boxes, and overlaps.
//
// Every operation is rounded on its own to float32, in the order of lstfe/boxes.py and torchvision's nms, and exp is
// rounded once from float64: what is kept and what is dropped does not depend on where it is computed.
#ifndef LSTFE_PROPOSAL_H
#define LSTFE_PROPOSAL_H

#include "sampling.h"

#include <cstring>

namespace lstfe
{

//! Objectness and index of an anchor as one number: a better anchor has a greater one, and no two are alike.
using Key = unsigned long long;

constexpr int32_t kMAX_CANDIDATES = 1 << 14; //!< Of suppression, whose table of overlaps grows with their square.
constexpr int32_t kMAX_ANCHORS = 1 << 28;    //!< Of a map; four times as many are still an int32_t.
constexpr float kMAX_LOG_SCALE = 4.135166556742356F; //!< log(1000 / 16), as lstfe.boxes.MAX_LOG_SCALE.
constexpr float kLEAST_SIDE_PX = 1e-3F;              //!< What an anchor clipped to nothing has left, as in PyTorch.
constexpr float kMAX_PX = 1e6F;                      //!< Of a stride and a side.

struct Box
{
    float x1, y1, x2, y2;
};

// A compiler that makes one rounding of a product and a sum would decide otherwise than PyTorch: on the device these
// are instructions that cannot be merged, the host's part is compiled with -ffp-contract=off.
#ifdef __CUDA_ARCH__
#define LSTFE_ROUNDED(intrinsic, plain) intrinsic
#else
#define LSTFE_ROUNDED(intrinsic, plain) plain
#endif

LSTFE_HD float multiply(float a, float b)
{
    return LSTFE_ROUNDED(__fmul_rn(a, b), a * b);
}

LSTFE_HD float add(float a, float b)
{
    return LSTFE_ROUNDED(__fadd_rn(a, b), a + b);
}

LSTFE_HD float subtract(float a, float b)
{
    return LSTFE_ROUNDED(__fsub_rn(a, b), a - b);
}

LSTFE_HD float divide(float a, float b)
{
    return LSTFE_ROUNDED(__fdiv_rn(a, b), a / b);
}

#undef LSTFE_ROUNDED

LSTFE_HD int32_t numAnchors(LstfeProposalParams const& p)
{
    return p.anchors * p.height * p.width;
}

//! How many anchors take part in suppression.
LSTFE_HD int32_t numCandidates(LstfeProposalParams const& p)
{
    return p.preNmsTopK < numAnchors(p) ? p.preNmsTopK : numAnchors(p);
}

//! Bits that hold every anchor's index.
LSTFE_HD int32_t indexBits(LstfeProposalParams const& p)
{
    int32_t const last = numAnchors(p) > 1 ? numAnchors(p) - 1 : 1;
#ifdef __CUDA_ARCH__
    return 32 - __clz(last);
#else
    return 32 - __builtin_clz(static_cast<uint32_t>(last));
#endif
}

//! Unsigned integers in the order of the floats; both zeros are equal, and NaN is below everything.
LSTFE_HD uint32_t ordered(float value)
{
    if (value != value)
    {
        return 0U;
    }
    float const unsignedZero = add(value, 0.F); // -0 + 0 = 0
    uint32_t bits;
    memcpy(&bits, &unsignedZero, sizeof bits);
    return (bits >> 31) != 0U ? ~bits : bits | 0x80000000U;
}

//! The key of the logit that lies at `place` of the objectness, A x H x W. Anchors are numbered cell by cell.
LSTFE_HD Key keyAt(LstfeProposalParams const& p, float logit, int32_t place)
{
    int32_t const cells = p.height * p.width;
    int32_t const bits = indexBits(p);
    Key const index = static_cast<Key>(place % cells) * static_cast<Key>(p.anchors) + static_cast<Key>(place / cells);
    return static_cast<Key>(ordered(logit)) << bits | (((Key{1} << bits) - 1U) - index);
}

//! The number of the anchor that a key is of.
LSTFE_HD int32_t anchorOf(LstfeProposalParams const& p, Key key)
{
    Key const mask = (Key{1} << indexBits(p)) - 1U;
    return static_cast<int32_t>(mask - (key & mask));
}

//! Whether the key's logit is a number.
LSTFE_HD bool isNumber(LstfeProposalParams const& p, Key key)
{
    return (key >> indexBits(p)) != 0U;
}

//! Moves a coordinate into 0 .. limit; NaN stays, as in torch.clamp.
LSTFE_HD float clip(float value, float limit)
{
    float const positive = value < 0.F ? 0.F : value;
    return positive > limit ? limit : positive;
}

//! One side's begin and end from its anchor's and the two deltas, clipped to the image.
LSTFE_HD void decodeSide(float begin, float end, float delta, float logScale, float limit, float& first, float& last)
{
    float const size = subtract(end, begin);
    float const centre = add(multiply(add(begin, end), 0.5F), multiply(delta, size));
    float const bounded = logScale > kMAX_LOG_SCALE ? kMAX_LOG_SCALE : logScale;
    float const scale = static_cast<float>(exp(static_cast<double>(bounded)));
    float const half = multiply(multiply(size, scale), 0.5F);
    first = clip(subtract(centre, half), limit);
    last = clip(add(centre, half), limit);
}

//! What the box of an anchor is made of.
struct ProposalInputs
{
    float const* objectness;    //!< A x H x W
    float const* boxDeltas;     //!< 4A x H x W
    float const* cellAnchors;   //!< A x 4
    int32_t const* imageSize;   //!< Height, width.
};

//! The box of anchor number `anchor`, zero where it is too small or no number.
LSTFE_HD Box boxOf(LstfeProposalParams const& p, ProposalInputs const& t, int32_t anchor)
{
    int32_t const cells = p.height * p.width;
    int32_t const a = anchor % p.anchors;
    int32_t const cell = anchor / p.anchors;
    float const* const deltas = t.boxDeltas + 4 * a * cells + cell;
    float const* const shape = t.cellAnchors + 4 * a;
    float const x = multiply(add(static_cast<float>(cell % p.width), 0.5F), p.stride);
    float const y = multiply(add(static_cast<float>(cell / p.width), 0.5F), p.stride);
    Box box{};
    decodeSide(add(x, shape[0]), add(x, shape[2]), deltas[0], deltas[2 * cells], static_cast<float>(t.imageSize[1]),
        box.x1, box.x2);
    decodeSide(add(y, shape[1]), add(y, shape[3]), deltas[cells], deltas[3 * cells],
        static_cast<float>(t.imageSize[0]), box.y1, box.y2);
    float const least = p.minSizePx > kLEAST_SIDE_PX ? p.minSizePx : kLEAST_SIDE_PX;
    bool const isLarge = subtract(box.x2, box.x1) > least && subtract(box.y2, box.y1) > least;
    return isLarge ? box : Box{0.F, 0.F, 0.F, 0.F};
}

//! Whether it is a box at all: what boxOf drops is zero.
LSTFE_HD bool isBox(Box const& box)
{
    return box.x2 > box.x1;
}

LSTFE_HD float areaOf(Box const& box)
{
    return multiply(subtract(box.x2, box.x1), subtract(box.y2, box.y1));
}

//! Whether two boxes' intersection over union exceeds a threshold that is not negative.
LSTFE_HD bool doOverlap(Box const& first, float firstArea, Box const& second, float secondArea, float threshold)
{
    float const left = first.x1 > second.x1 ? first.x1 : second.x1;
    float const top = first.y1 > second.y1 ? first.y1 : second.y1;
    float const right = first.x2 < second.x2 ? first.x2 : second.x2;
    float const bottom = first.y2 < second.y2 ? first.y2 : second.y2;
    float const width = subtract(right, left);
    float const height = subtract(bottom, top);
    if (!(width > 0.F && height > 0.F)) // most pairs, and the division is what costs
    {
        return false;
    }
    float const intersection = multiply(width, height);
    return divide(intersection, subtract(add(firstArea, secondArea), intersection)) > threshold;
}

} // namespace lstfe

#endif // LSTFE_PROPOSAL_H
