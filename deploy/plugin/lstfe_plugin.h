// C interface of the kernels: raw device pointers, a stream, a status. Neither TensorRT nor C++ is needed to call it.
//
// Shapes: N batch, C channels, O output channels, H x W input cells, h x w output cells, K taps of
// the kernel, A anchors a cell, P proposals asked for, J classes.
#ifndef LSTFE_PLUGIN_H
#define LSTFE_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C"
{
#endif

#define LSTFE_API __attribute__((visibility("default")))

    enum LstfeType
    {
        LSTFE_FLOAT32 = 0,
        LSTFE_FLOAT16 = 1,
        LSTFE_BFLOAT16 = 2
    };

    //! How features, weights and output lie in memory. Offsets and masks are always NCHW float32, bias float32.
    enum LstfeLayout
    {
        LSTFE_NCHW = 0, //!< Channels first, weights O x C/groups x K.
        LSTFE_NHWC = 1  //!< Channels last, padded to a multiple of 8 (kHWC8), weights O x K x C/groups likewise.
    };

    enum LstfeAlgorithm
    {
        LSTFE_AUTO = 0,
        LSTFE_SIMPLE = 1,     //!< Every type, layout and shape; one thread a cell and 8 output channels.
        LSTFE_TILE_64X64 = 2, //!< Tensor cores, NHWC half or bfloat16: cells x output channels of a block's tile.
        LSTFE_TILE_128X128 = 3,
        LSTFE_TILE_128X256 = 4
    };

    enum LstfeStatus
    {
        LSTFE_OK = 0,
        LSTFE_BAD_PARAMETERS = 1, //!< A number is out of its range, or channels do not divide into groups.
        LSTFE_NOT_SUPPORTED = 2,  //!< The asked algorithm cannot do this type, layout, shape or device.
        LSTFE_NULL_POINTER = 3,
        LSTFE_SMALL_WORKSPACE = 4, //!< Less memory than asked for by the function that says how much.
        LSTFE_CUDA_ERROR = 1000 //!< Plus the cudaError_t.
    };

    //! Where a deformable convolution looks; the parameters of torchvision.ops.deform_conv2d, padding for each side.
    struct LstfeSampling
    {
        int32_t batch, height, width; //!< Input, in cells.
        int32_t kernelHeight, kernelWidth;
        int32_t strideY, strideX;
        int32_t padTop, padLeft, padBottom, padRight;
        int32_t dilationY, dilationX;
        int32_t offsetGroups;
    };

    struct LstfeDeformConvParams
    {
        struct LstfeSampling sampling;
        int32_t channels, outChannels, groups;
        int32_t relu; //!< 1: the output is max(0, x).
        int32_t type, layout;
        int32_t algorithm;
        int32_t splits; //!< Parts of the sum over channels and taps that run side by side; 0 chooses.
    };

    //! The commuted form: `maps` are the K per-tap maps W_p f, so that only sampling and summing is left.
    struct LstfeSampledSumParams
    {
        struct LstfeSampling sampling; //!< offsetGroups must be 1.
        int32_t channels;              //!< Of one map.
        int32_t relu;
        int32_t type, layout; //!< Layout of the output.
    };

    //! Region proposals of one image.
    struct LstfeProposalParams
    {
        int32_t anchors, height, width; //!< Anchors a cell, and the map in cells.
        float stride;                   //!< Pixels of the image a cell.
        int32_t preNmsTopK;             //!< Anchors with the best objectness that take part.
        int32_t postNmsTopK;            //!< P, boxes in the output.
        float nmsIou;                   //!< A box that overlaps a better one by more is dropped.
        float minSizePx;                //!< So is one with a side of this length or less, and of 0.001 pixels.
    };

    //! Suppression of the boxes of each class by itself.
    struct LstfeSuppressionParams
    {
        int32_t classes, boxes; //!< J, and N boxes of each class.
        float nmsIou;           //!< A box that overlaps a better one by more is dropped.
        float scoreThreshold;   //!< Only boxes with a greater score take part.
        int32_t maxKept;        //!< Of each class.
    };

    //! Output height or width, in cells; not positive where the kernel does not fit.
    LSTFE_API int32_t lstfe_output_height(struct LstfeSampling const* sampling);
    LSTFE_API int32_t lstfe_output_width(struct LstfeSampling const* sampling);

    //! Bytes of device memory that `lstfe_deform_conv2d` can make use of; it also runs with none, if slower.
    LSTFE_API size_t lstfe_deform_conv2d_workspace(struct LstfeDeformConvParams const* params);

    //! Deformable convolution: features N x C x H x W, offsets N x 2*G*K x h x w in cells as (dy, dx),
    //! mask N x G*K x h x w or null, weight O x C/groups x K, bias O or null, output N x O x h x w.
    LSTFE_API int32_t lstfe_deform_conv2d(struct LstfeDeformConvParams const* params, void const* features,
        float const* offsets, float const* mask, void const* weight, float const* bias, void* output, void* workspace,
        size_t workspaceBytes, void* stream);

    //! Sampled sum: maps N x H x W x K*C in either layout (a cell's row is tap-major), offsets and mask as above, bias C
    //! or null, output N x C x h x w.
    LSTFE_API int32_t lstfe_sampled_sum(struct LstfeSampledSumParams const* params, void const* maps,
        float const* offsets, float const* mask, float const* bias, void* output, void* stream);

    //! Bytes of device memory that `lstfe_proposals` needs; grows with every size. 0 for parameters without sense.
    LSTFE_API size_t lstfe_proposals_workspace(struct LstfeProposalParams const* params);

    //! Proposals, best first: objectness A x H x W and box deltas 4A x H x W (of anchor a: channels 4a .. 4a + 3),
    //! anchors of a cell A x 4 (xyxy around its centre, pixels), image size on the device (height, width)
    //! -> boxes P x 4 (xyxy, pixels), zero where there is none, and valid P, 1 or 0.
    //! Of equal anchors the earlier one is better, in the order of rows, columns, anchors. NaN takes no part.
    LSTFE_API int32_t lstfe_proposals(struct LstfeProposalParams const* params, float const* objectness,
        float const* boxDeltas, float const* cellAnchors, int32_t const* imageSize, float* boxes, int32_t* valid,
        void* workspace, size_t workspaceBytes, void* stream);

    //! Bytes of device memory that `lstfe_suppression` needs; grows with every size. 0 for parameters without sense.
    LSTFE_API size_t lstfe_suppression_workspace(struct LstfeSuppressionParams const* params);

    //! Greedy suppression class by class: boxes J x N x 4 (xyxy), scores J x N -> marks J x N, 1 where a box is kept.
    //! Of equal scores the earlier one is better. NaN takes no part, whether it is a score or in a box.
    LSTFE_API int32_t lstfe_suppression(struct LstfeSuppressionParams const* params, float const* boxes,
        float const* scores, int32_t* marks, void* workspace, size_t workspaceBytes, void* stream);

    //! The same four on the host: float32, NCHW, plain loops. References for tests.
    LSTFE_API int32_t lstfe_deform_conv2d_host(struct LstfeDeformConvParams const* params, float const* features,
        float const* offsets, float const* mask, float const* weight, float const* bias, float* output);
    LSTFE_API int32_t lstfe_sampled_sum_host(struct LstfeSampledSumParams const* params, float const* maps,
        float const* offsets, float const* mask, float const* bias, float* output);

    LSTFE_API int32_t lstfe_proposals_host(struct LstfeProposalParams const* params, float const* objectness,
        float const* boxDeltas, float const* cellAnchors, int32_t const* imageSize, float* boxes, int32_t* valid);
    LSTFE_API int32_t lstfe_suppression_host(struct LstfeSuppressionParams const* params, float const* boxes,
        float const* scores, int32_t* marks);

    //! One line for a status.
    LSTFE_API char const* lstfe_status_text(int32_t status);

#ifdef __cplusplus
}
#endif

#endif // LSTFE_PLUGIN_H
