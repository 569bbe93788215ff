// Arithmetic of region proposals, one source for host and device: the order of anchors and their boxes.
//
// Every operation is rounded on its own to float32, in the order of lstfe/boxes.py, and exp is rounded once from float64.
#ifndef LSTFE_PROPOSAL_H
#define LSTFE_PROPOSAL_H

#include "boxes.h"

#include <cmath>

namespace lstfe
{

constexpr int32_t kMAX_ANCHORS = 1 << 28; //!< Of a map; four times as many are still an int32_t.
constexpr float kMAX_LOG_SCALE = 4.135166556742356F; //!< log(1000 / 16), as lstfe.boxes.MAX_LOG_SCALE.
constexpr float kLEAST_SIDE_PX = 1e-3F;              //!< What an anchor clipped to nothing has left, as in PyTorch.
constexpr float kMAX_PX = 1e6F;                      //!< Of a stride and a side.

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

} // namespace lstfe

#endif // LSTFE_PROPOSAL_H
