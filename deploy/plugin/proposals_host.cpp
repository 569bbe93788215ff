// The host reference of the region proposals: a sort, and suppression box by box.
#include "checks.h"
#include "proposal.h"

#include <algorithm>
#include <vector>

namespace lstfe
{
namespace
{

//! The keys of the best anchors, best first.
std::vector<Key> bestKeys(LstfeProposalParams const& p, float const* objectness)
{
    std::vector<Key> keys(static_cast<size_t>(numAnchors(p)));
    for (int32_t place = 0; place < numAnchors(p); ++place)
    {
        keys[static_cast<size_t>(place)] = keyAt(p, objectness[place], place);
    }
    auto const last = keys.begin() + numCandidates(p);
    std::partial_sort(keys.begin(), last, keys.end(), [](Key first, Key second) { return first > second; });
    keys.erase(last, keys.end());
    return keys;
}

bool isKept(Box const& box, std::vector<Box> const& better, float threshold)
{
    auto const overlapsIt = [&](Box const& other)
    { return doOverlap(other, areaOf(other), box, areaOf(box), threshold); };
    return isBox(box) && std::none_of(better.begin(), better.end(), overlapsIt);
}

std::vector<Box> propose(LstfeProposalParams const& p, ProposalInputs const& inputs)
{
    std::vector<Box> kept;
    for (Key const key : bestKeys(p, inputs.objectness))
    {
        Box const box = boxOf(p, inputs, anchorOf(p, key));
        if (isNumber(p, key) && isKept(box, kept, p.nmsIou))
        {
            kept.push_back(box);
        }
        if (kept.size() == static_cast<size_t>(p.postNmsTopK))
        {
            break;
        }
    }
    return kept;
}

bool isWithin(float value, float least, float most)
{
    return value >= least && value <= most; // not where it is NaN
}

} // namespace

int32_t check(LstfeProposalParams const& p)
{
    bool const positive = p.anchors > 0 && p.height > 0 && p.width > 0 && p.preNmsTopK > 0 && p.postNmsTopK > 0;
    bool const small = positive && p.preNmsTopK <= kMAX_CANDIDATES && p.postNmsTopK <= kMAX_CANDIDATES
        && int64_t{p.height} * p.width <= kMAX_ANCHORS && int64_t{p.height} * p.width * p.anchors <= kMAX_ANCHORS;
    bool const sound = isWithin(p.nmsIou, 0.F, 1.F) && isWithin(p.minSizePx, 0.F, kMAX_PX)
        && isWithin(p.stride, kLEAST_SIDE_PX, kMAX_PX);
    return small && sound ? LSTFE_OK : LSTFE_BAD_PARAMETERS;
}

} // namespace lstfe

using namespace lstfe;

int32_t lstfe_proposals_host(LstfeProposalParams const* params, float const* objectness, float const* boxDeltas,
    float const* cellAnchors, int32_t const* imageSize, float* boxes, int32_t* valid)
{
    int32_t const status = checkCall(params, objectness, boxDeltas, cellAnchors, imageSize, boxes, valid);
    if (status != LSTFE_OK)
    {
        return status;
    }
    std::vector<Box> kept = propose(*params, ProposalInputs{objectness, boxDeltas, cellAnchors, imageSize});
    size_t const number = kept.size();
    kept.resize(static_cast<size_t>(params->postNmsTopK), Box{0.F, 0.F, 0.F, 0.F});
    for (size_t i = 0; i < kept.size(); ++i)
    {
        float const corners[4] = {kept[i].x1, kept[i].y1, kept[i].x2, kept[i].y2};
        std::copy(corners, corners + 4, boxes + 4 * i);
        valid[i] = i < number ? 1 : 0;
    }
    return LSTFE_OK;
}
