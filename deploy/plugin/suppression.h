// Suppression of the boxes of several classes, one source for host and device: who takes part, and in which order.
#ifndef LSTFE_SUPPRESSION_H
#define LSTFE_SUPPRESSION_H

#include "boxes.h"

namespace lstfe
{

constexpr int32_t kMAX_CLASS_BOXES = 1 << 26; //!< Of all classes; their coordinates are still an int32_t.
constexpr int32_t kMAX_KEPT = 1 << 26;

struct SuppressionTensors
{
    float const* boxes;  //!< J x N x 4
    float const* scores; //!< J x N
    int32_t* marks;      //!< J x N
};

LSTFE_HD bool hasNan(Box const& box)
{
    return box.x1 != box.x1 || box.y1 != box.y1 || box.x2 != box.x2 || box.y2 != box.y2;
}

//! The key of box `index` of its class; 0 where it takes no part.
LSTFE_HD Key classKey(LstfeSuppressionParams const& p, float score, Box const& box, int32_t index)
{
    bool const takesPart = score > p.scoreThreshold && !hasNan(box); // a score that is NaN exceeds nothing
    return takesPart ? Key{ordered(score)} << 32 | static_cast<uint32_t>(~index) : 0U;
}

//! The index of the box that a key is of.
LSTFE_HD int32_t classIndex(Key key)
{
    return ~static_cast<int32_t>(static_cast<uint32_t>(key));
}

} // namespace lstfe

#endif // LSTFE_SUPPRESSION_H
