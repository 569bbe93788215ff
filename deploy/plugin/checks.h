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

} // namespace lstfe

#endif // LSTFE_CHECKS_H
