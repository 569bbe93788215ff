// The host reference of suppression class by class: a sort, and suppression box by box.
#include "checks.h"
#include "suppression.h"

#include <algorithm>
#include <functional>
#include <vector>

namespace lstfe
{
namespace
{

Box boxAt(SuppressionTensors const& t, int32_t place)
{
    float const* const corners = t.boxes + 4 * place;
    return Box{corners[0], corners[1], corners[2], corners[3]};
}

//! The keys of the boxes of a class that take part, best first.
std::vector<Key> keysOfClass(LstfeSuppressionParams const& p, SuppressionTensors const& t, int32_t first)
{
    std::vector<Key> keys;
    for (int32_t index = 0; index < p.boxes; ++index)
    {
        Key const key = classKey(p, t.scores[first + index], boxAt(t, first + index), index);
        if (key != 0U)
        {
            keys.push_back(key);
        }
    }
    std::sort(keys.begin(), keys.end(), std::greater<>());
    return keys;
}

void markClass(LstfeSuppressionParams const& p, SuppressionTensors const& t, int32_t first)
{
    std::vector<Box> kept;
    for (Key const key : keysOfClass(p, t, first))
    {
        if (kept.size() == static_cast<size_t>(p.maxKept))
        {
            return;
        }
        int32_t const place = first + classIndex(key);
        Box const box = boxAt(t, place);
        auto const overlapsIt = [&](Box const& better)
        { return doOverlap(better, areaOf(better), box, areaOf(box), p.nmsIou); };
        if (std::none_of(kept.begin(), kept.end(), overlapsIt))
        {
            kept.push_back(box);
            t.marks[place] = 1;
        }
    }
}

} // namespace

int32_t check(LstfeSuppressionParams const& p)
{
    bool const positive = p.classes > 0 && p.boxes > 0 && p.maxKept > 0;
    bool const small = p.boxes <= kMAX_CANDIDATES && int64_t{p.classes} * p.boxes <= kMAX_CLASS_BOXES
        && p.maxKept <= kMAX_KEPT;
    bool const sound = p.nmsIou >= 0.F && p.nmsIou <= 1.F && p.scoreThreshold == p.scoreThreshold; // no NaN
    return positive && small && sound ? LSTFE_OK : LSTFE_BAD_PARAMETERS;
}

} // namespace lstfe

using namespace lstfe;

int32_t lstfe_suppression_host(
    LstfeSuppressionParams const* params, float const* boxes, float const* scores, int32_t* marks)
{
    int32_t const status = checkCall(params, boxes, scores, marks);
    if (status != LSTFE_OK)
    {
        return status;
    }
    SuppressionTensors const tensors{boxes, scores, marks};
    std::fill(marks, marks + params->classes * params->boxes, 0);
    for (int32_t c = 0; c < params->classes; ++c)
    {
        markClass(*params, tensors, c * params->boxes);
    }
    return LSTFE_OK;
}
