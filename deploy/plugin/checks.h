// Whether parameters make sense, asked before anything is launched.
#ifndef LSTFE_CHECKS_H
#define LSTFE_CHECKS_H

#include "lstfe_plugin.h"

namespace lstfe
{

//! They return an LstfeStatus.
int32_t check(LstfeDeformConvParams const& params);
int32_t check(LstfeSampledSumParams const& params);
int32_t check(LstfeProposalParams const& params);
int32_t check(LstfeSuppressionParams const& params);

//! Whether a call can begin: nothing it needs is null, and its parameters make sense. Returns an LstfeStatus.
template <typename Params, typename... Tensors>
int32_t checkCall(Params const* params, Tensors const*... needed)
{
    bool const isMissing = params == nullptr || (... || (needed == nullptr));
    return isMissing ? static_cast<int32_t>(LSTFE_NULL_POINTER) : check(*params);
}

} // namespace lstfe

#endif // LSTFE_CHECKS_H
