// Boxes, their order and their overlaps, one source for host and device.
//
// Every operation is rounded on its own to float32, in the order of torchvision's nms: what is kept and what is dropped
// does not depend on where it is computed.
#ifndef LSTFE_BOXES_H
#define LSTFE_BOXES_H

#include "host_device.h"
#include "lstfe_plugin.h"

#include <cstring>

namespace lstfe
{

//! Score and index of a box as one number: a better box has a greater one, and no two are alike.
using Key = unsigned long long;

constexpr int32_t kMAX_CANDIDATES = 1 << 14; //!< Of one suppression, whose work grows with their square.

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

#endif // LSTFE_BOXES_H
