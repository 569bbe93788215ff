// What TensorRT finds in the library. Nothing registers itself: call lstfe_register, or let
// IPluginRegistry::loadLibrary ask for the creators.
#if __has_include(<NvInferVersion.h>)
#include <NvInferVersion.h>
#endif

#if NV_TENSORRT_MAJOR >= 10
#include "plugin_v3.h"
#else
#include "plugin_v2.h"
#endif

namespace lstfe
{
namespace
{

CreatorInterface* const* creators(int32_t& count)
{
    static Creator deformConv{Kind::kDEFORM_CONV};
    static Creator sampledSum{Kind::kSAMPLED_SUM};
    static Creator proposals{Kind::kPROPOSALS};
    static Creator suppression{Kind::kSUPPRESSION};
    static CreatorInterface* const all[kNUM_KINDS] = {&deformConv, &sampledSum, &proposals, &suppression};
    count = kNUM_KINDS;
    return all;
}

#if NV_TENSORRT_MAJOR > 8 || NV_TENSORRT_MINOR >= 6
nvinfer1::ILoggerFinder* gLoggerFinder = nullptr;

nvinfer1::ILogger* findLogger()
{
    return gLoggerFinder == nullptr ? nullptr : gLoggerFinder->findLogger();
}
#endif

} // namespace
} // namespace lstfe

//! Registers the operators, once; `registry` is an nvinfer1::IPluginRegistry. Returns whether it took all of them.
extern "C" LSTFE_API bool lstfe_register(void* registry)
{
    if (registry == nullptr)
    {
        return false;
    }
    int32_t count = 0;
    lstfe::CreatorInterface* const* const all = lstfe::creators(count);
    bool accepted = true;
    for (int32_t i = 0; i < count; ++i)
    {
        accepted = static_cast<nvinfer1::IPluginRegistry*>(registry)->registerCreator(*all[i], lstfe::kNAMESPACE)
            && accepted;
    }
    return accepted;
}

//! The version of TensorRT's headers that the plugin was compiled with, as major * 100 + minor.
extern "C" LSTFE_API int32_t lstfe_tensorrt_version()
{
    return NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR;
}

#if NV_TENSORRT_MAJOR >= 10
extern "C" LSTFE_API nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count)
{
    return lstfe::creators(count);
}
#else
extern "C" LSTFE_API nvinfer1::IPluginCreator* const* getPluginCreators(int32_t& count)
{
    return lstfe::creators(count);
}
#endif

#if NV_TENSORRT_MAJOR > 8 || NV_TENSORRT_MINOR >= 6
extern "C" LSTFE_API void setLoggerFinder(nvinfer1::ILoggerFinder* finder)
{
    lstfe::gLoggerFinder = finder;
    lstfe::setLogger(&lstfe::findLogger);
}
#endif
