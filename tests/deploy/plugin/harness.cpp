// Exercises the plugin as TensorRT would, with TensorRT's headers only: no libnvinfer, no GPU. The kernels are those of
// cuda_on_host.h, so that `enqueue` really runs. Prints the number of checks; the first that fails ends the program.
#include "lstfe_plugin.h"

#include <NvInfer.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <list>
#include <numeric>
#include <string>
#include <vector>

using namespace nvinfer1;

extern "C" bool lstfe_register(void* registry);
extern "C" int32_t lstfe_tensorrt_version();
#if NV_TENSORRT_MAJOR >= 10
extern "C" IPluginCreatorInterface* const* getCreators(int32_t& count);
#else
extern "C" IPluginCreator* const* getPluginCreators(int32_t& count);
#endif
#if NV_TENSORRT_MAJOR > 8 || NV_TENSORRT_MINOR >= 6
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
#endif

namespace
{

int32_t gChecks = 0;

#define CHECK(condition)                                                 \
    do                                                                   \
    {                                                                    \
        ++gChecks;                                                       \
        if (!(condition))                                                \
        {                                                                \
            std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
            std::exit(1);                                                \
        }                                                                \
    } while (false)

#if NV_TENSORRT_MAJOR >= 10
using Size = int64_t;
using AnyCreator = IPluginCreatorInterface;
using OwnCreator = IPluginCreatorV3One;
using AnyPlugin = IPluginV3;
#else
using Size = int32_t;
using AnyCreator = IPluginCreator;
using OwnCreator = IPluginCreator;
using AnyPlugin = IPluginV2DynamicExt;
#endif

// ------------------------------------------------------------------------------------------------- TensorRT's side

struct Number : IDimensionExpr, apiv::VDimensionExpr
{
    explicit Number(Size value)
        : mValue(value)
    {
        mImpl = this;
    }
    bool isConstant() const override { return true; }
    Size getConstantValue() const override { return mValue; }
    virtual bool isSizeTensor() const { return false; }
    Size mValue;
};

struct Builder : IExprBuilder, apiv::VExprBuilder
{
    Builder() { mImpl = this; }
    IDimensionExpr const* constant(Size value) override
    {
        numbers.emplace_back(value);
        return &numbers.back();
    }
    IDimensionExpr const* operation(
        DimensionOperation op, IDimensionExpr const& first, IDimensionExpr const& second) override
    {
        CHECK(op == DimensionOperation::kFLOOR_DIV);
        return constant(first.getConstantValue() / second.getConstantValue());
    }
    virtual IDimensionExpr const* declareSizeTensor(int32_t, IDimensionExpr const&, IDimensionExpr const&)
    {
        return nullptr;
    }
    DimsExprs dims(std::initializer_list<Size> sizes)
    {
        DimsExprs result{};
        for (Size const size : sizes)
        {
            result.d[result.nbDims++] = constant(size);
        }
        return result;
    }
    std::list<Number> numbers;
};

//! Keeps what is registered; has every method that some version asks for.
struct Registry : IPluginRegistry
{
    bool registerCreator(AnyCreator& creator, char const* const name) noexcept override
    {
        names.push_back(name);
        creators.push_back(&creator);
        return creators.size() <= most;
    }
    void setErrorRecorder(IErrorRecorder* const) noexcept override {}
    IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
    virtual bool isParentSearchEnabled() const { return false; }
    virtual void setParentSearchEnabled(bool const) {}
    virtual void* loadLibrary(char const*) noexcept { return nullptr; }
    virtual void deregisterLibrary(void*) noexcept {}
#if NV_TENSORRT_MAJOR < 11
    IPluginCreator* const* getPluginCreatorList(int32_t* const) const noexcept override { return nullptr; }
    IPluginCreator* getPluginCreator(char const* const, char const* const, char const* const) noexcept override
    {
        return nullptr;
    }
    bool deregisterCreator(IPluginCreator const&) noexcept override { return false; }
#endif
#if NV_TENSORRT_MAJOR >= 10
#if NV_TENSORRT_MAJOR < 11
    bool registerCreator(IPluginCreator&, char const* const) noexcept override { return false; }
#endif
    IPluginCreatorInterface* const* getAllCreators(int32_t* const) const noexcept override { return nullptr; }
    IPluginCreatorInterface* getCreator(char const* const, char const* const, char const* const) noexcept override
    {
        return nullptr;
    }
    bool deregisterCreator(IPluginCreatorInterface const&) noexcept override { return false; }
    IPluginResource* acquirePluginResource(char const*, IPluginResource*) noexcept override { return nullptr; }
    int32_t releasePluginResource(char const*) noexcept override { return 0; }
    virtual IPluginCreatorInterface* const* getAllCreatorsRecursive(int32_t* const) noexcept { return nullptr; }
#endif
    std::vector<std::string> names;
    std::vector<AnyCreator*> creators;
    size_t most = 4;
};

struct Log : ILogger
{
    void log(Severity, char const* message) noexcept override { last = message; }
    std::string last;
} gLog;

#if NV_TENSORRT_MAJOR > 8 || NV_TENSORRT_MINOR >= 6
struct Finder : ILoggerFinder
{
    ILogger* findLogger() override { return &gLog; }
} gFinder;
#endif

// ----------------------------------------------------------------------------------------- both interfaces as one

using Numbers = std::vector<int32_t>;

struct Attribute
{
    char const* name;
    Numbers values; // or the bits of a float
    PluginFieldType type = PluginFieldType::kINT32;
};

Attribute real(char const* name, float number)
{
    Attribute result{name, {0}, PluginFieldType::kFLOAT32};
    std::memcpy(result.values.data(), &number, sizeof number);
    return result;
}

std::vector<PluginField> fieldsOf(std::vector<Attribute> const& attributes)
{
    std::vector<PluginField> fields;
    for (Attribute const& attribute : attributes)
    {
        fields.emplace_back(attribute.name, attribute.values.data(), attribute.type,
            static_cast<int32_t>(attribute.values.size()));
    }
    return fields;
}

std::vector<OwnCreator*> allCreators();
AnyPlugin* create(OwnCreator& creator, std::vector<Attribute> const& attributes);
AnyPlugin* restore(OwnCreator& creator, std::vector<char> const& state);
std::vector<char> stateOf(AnyPlugin& plugin);
void destroy(AnyPlugin* plugin);
int32_t numOutputsOf(AnyPlugin& plugin);
std::vector<Size> shapeOf(
    AnyPlugin& plugin, std::vector<DimsExprs> const& inputs, Builder& builder, int32_t output = 0);
bool supports(AnyPlugin& plugin, int32_t position, std::vector<PluginTensorDesc> const& tensors);
size_t workspaceOf(AnyPlugin& plugin, std::vector<PluginTensorDesc> const& inputs);
int32_t run(
    AnyPlugin& plugin, std::vector<PluginTensorDesc> const& tensors, std::vector<void*> const& memory, void* workspace);
DataType typeOf(AnyPlugin& plugin, std::vector<DataType> const& inputs, int32_t output = 0);

std::vector<Size> sizesOf(DimsExprs const& dims)
{
    std::vector<Size> sizes;
    for (int32_t i = 0; i < dims.nbDims; ++i)
    {
        sizes.push_back(dims.d[i]->getConstantValue());
    }
    return sizes;
}

#if NV_TENSORRT_MAJOR >= 10

std::vector<OwnCreator*> allCreators()
{
    int32_t count = 0;
    auto* const* const all = getCreators(count);
    std::vector<OwnCreator*> result;
    for (int32_t i = 0; i < count; ++i)
    {
        result.push_back(static_cast<OwnCreator*>(all[i]));
        CHECK(std::string(all[i]->getInterfaceInfo().kind) == "PLUGIN CREATOR_V3ONE");
    }
    return result;
}

AnyPlugin* createIn(OwnCreator& creator, std::vector<PluginField> const& fields, TensorRTPhase phase)
{
    PluginFieldCollection const collection{static_cast<int32_t>(fields.size()), fields.data()};
    return creator.createPlugin("node", &collection, phase);
}

AnyPlugin* create(OwnCreator& creator, std::vector<Attribute> const& attributes)
{
    return createIn(creator, fieldsOf(attributes), TensorRTPhase::kBUILD);
}

AnyPlugin* restore(OwnCreator& creator, std::vector<char> const& state)
{
    PluginField const field("state", state.data(), PluginFieldType::kCHAR, static_cast<int32_t>(state.size()));
    return createIn(creator, {field}, TensorRTPhase::kRUNTIME);
}

IPluginV3OneBuild& buildOf(AnyPlugin& plugin)
{
    return *static_cast<IPluginV3OneBuild*>(plugin.getCapabilityInterface(PluginCapabilityType::kBUILD));
}

IPluginV3OneRuntime& runtimeOf(AnyPlugin& plugin)
{
    return *static_cast<IPluginV3OneRuntime*>(plugin.getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

std::vector<char> stateOf(AnyPlugin& plugin)
{
    PluginFieldCollection const* const fields = runtimeOf(plugin).getFieldsToSerialize();
    CHECK(fields->nbFields == 1);
    char const* const data = static_cast<char const*>(fields->fields[0].data);
    return {data, data + fields->fields[0].length};
}

void destroy(AnyPlugin* plugin)
{
    delete plugin;
}

int32_t numOutputsOf(AnyPlugin& plugin)
{
    return buildOf(plugin).getNbOutputs();
}

std::vector<Size> shapeOf(AnyPlugin& plugin, std::vector<DimsExprs> const& inputs, Builder& builder, int32_t output)
{
    std::vector<DimsExprs> outputs(static_cast<size_t>(numOutputsOf(plugin)));
    int32_t const status = buildOf(plugin).getOutputShapes(inputs.data(), static_cast<int32_t>(inputs.size()), nullptr,
        0, outputs.data(), numOutputsOf(plugin), builder);
    return status == 0 ? sizesOf(outputs[static_cast<size_t>(output)]) : std::vector<Size>{};
}

std::vector<DynamicPluginTensorDesc> dynamic(std::vector<PluginTensorDesc> const& tensors)
{
    std::vector<DynamicPluginTensorDesc> result;
    for (PluginTensorDesc const& tensor : tensors)
    {
        result.push_back(DynamicPluginTensorDesc{tensor, tensor.dims, tensor.dims, tensor.dims});
    }
    return result;
}

bool supports(AnyPlugin& plugin, int32_t position, std::vector<PluginTensorDesc> const& tensors)
{
    int32_t const outputs = numOutputsOf(plugin);
    return buildOf(plugin).supportsFormatCombination(
        position, dynamic(tensors).data(), static_cast<int32_t>(tensors.size()) - outputs, outputs);
}

size_t workspaceOf(AnyPlugin& plugin, std::vector<PluginTensorDesc> const& inputs)
{
    std::vector<DynamicPluginTensorDesc> const largest = dynamic(inputs);
    return buildOf(plugin).getWorkspaceSize(
        largest.data(), static_cast<int32_t>(inputs.size()), nullptr, numOutputsOf(plugin));
}

int32_t run(
    AnyPlugin& plugin, std::vector<PluginTensorDesc> const& tensors, std::vector<void*> const& memory, void* workspace)
{
    int32_t const outputs = numOutputsOf(plugin);
    int32_t const inputs = static_cast<int32_t>(tensors.size()) - outputs;
    IPluginV3* const attached = runtimeOf(plugin).attachToContext(nullptr);
    CHECK(attached != nullptr && attached != &plugin);
    PluginTensorDesc const* const outputDescs = tensors.data() + inputs;
    int32_t status = runtimeOf(*attached).onShapeChange(tensors.data(), inputs, outputDescs, outputs);
    if (status == 0)
    {
        status = runtimeOf(*attached).enqueue(
            tensors.data(), outputDescs, memory.data(), memory.data() + inputs, workspace, nullptr);
    }
    delete attached;
    return status;
}

DataType typeOf(AnyPlugin& plugin, std::vector<DataType> const& inputs, int32_t output)
{
    int32_t const outputs = numOutputsOf(plugin);
    std::vector<DataType> types(static_cast<size_t>(outputs));
    int32_t const inputCount = static_cast<int32_t>(inputs.size());
    CHECK(buildOf(plugin).getOutputDataTypes(types.data(), outputs, inputs.data(), inputCount) == 0);
    CHECK(buildOf(plugin).getOutputDataTypes(types.data(), outputs, inputs.data(), inputCount - 1) != 0);
    CHECK(buildOf(plugin).configurePlugin(nullptr, inputCount, nullptr, outputs) == 0);
    CHECK(buildOf(plugin).configurePlugin(nullptr, inputCount, nullptr, outputs + 1) != 0);
    return types[static_cast<size_t>(output)];
}

#else

std::vector<OwnCreator*> allCreators()
{
    int32_t count = 0;
    auto* const* const all = getPluginCreators(count);
    return {all, all + count};
}

AnyPlugin* create(OwnCreator& creator, std::vector<Attribute> const& attributes)
{
    std::vector<PluginField> const fields = fieldsOf(attributes);
    PluginFieldCollection const collection{static_cast<int32_t>(fields.size()), fields.data()};
    return static_cast<AnyPlugin*>(creator.createPlugin("node", &collection));
}

AnyPlugin* restore(OwnCreator& creator, std::vector<char> const& state)
{
    return static_cast<AnyPlugin*>(creator.deserializePlugin("node", state.data(), state.size()));
}

std::vector<char> stateOf(AnyPlugin& plugin)
{
    std::vector<char> state(plugin.getSerializationSize());
    plugin.serialize(state.data());
    return state;
}

void destroy(AnyPlugin* plugin)
{
    plugin->destroy();
}

int32_t numOutputsOf(AnyPlugin& plugin)
{
    return plugin.getNbOutputs();
}

std::vector<Size> shapeOf(AnyPlugin& plugin, std::vector<DimsExprs> const& inputs, Builder& builder, int32_t output)
{
    return sizesOf(plugin.getOutputDimensions(output, inputs.data(), static_cast<int32_t>(inputs.size()), builder));
}

bool supports(AnyPlugin& plugin, int32_t position, std::vector<PluginTensorDesc> const& tensors)
{
    int32_t const outputs = numOutputsOf(plugin);
    return plugin.supportsFormatCombination(
        position, tensors.data(), static_cast<int32_t>(tensors.size()) - outputs, outputs);
}

size_t workspaceOf(AnyPlugin& plugin, std::vector<PluginTensorDesc> const& inputs)
{
    return plugin.getWorkspaceSize(
        inputs.data(), static_cast<int32_t>(inputs.size()), nullptr, numOutputsOf(plugin));
}

int32_t run(
    AnyPlugin& plugin, std::vector<PluginTensorDesc> const& tensors, std::vector<void*> const& memory, void* workspace)
{
    AnyPlugin* const copy = plugin.clone();
    CHECK(copy != nullptr && copy != &plugin && copy->initialize() == 0);
    CHECK(std::string(copy->getPluginNamespace()) == plugin.getPluginNamespace());
    size_t const inputs = tensors.size() - static_cast<size_t>(numOutputsOf(plugin));
    int32_t const status = copy->enqueue(
        tensors.data(), tensors.data() + inputs, memory.data(), memory.data() + inputs, workspace, nullptr);
    copy->terminate();
    copy->destroy();
    return status;
}

DataType typeOf(AnyPlugin& plugin, std::vector<DataType> const& inputs, int32_t output)
{
    return plugin.getOutputDataType(output, inputs.data(), static_cast<int32_t>(inputs.size()));
}

#endif

// --------------------------------------------------------------------------------------------------------- checks

PluginTensorDesc tensor(
    std::initializer_list<Size> sizes, DataType type = DataType::kFLOAT, TensorFormat format = TensorFormat::kLINEAR)
{
    PluginTensorDesc result{};
    for (Size const size : sizes)
    {
        result.dims.d[result.dims.nbDims++] = size;
    }
    result.type = type;
    result.format = format;
    result.scale = 1.F;
    return result;
}

void checkCreators()
{
    std::vector<OwnCreator*> const creators = allCreators();
    CHECK(creators.size() == 4);
    CHECK(std::string(creators[0]->getPluginName()) == "LstfeDeformConv2d");
    CHECK(std::string(creators[1]->getPluginName()) == "LstfeSampledSum");
    CHECK(std::string(creators[2]->getPluginName()) == "LstfeProposals");
    CHECK(std::string(creators[3]->getPluginName()) == "LstfeSuppression");
    char const* const sampling
        = "kernel_shape strides pads dilations group offset_group has_bias has_mask relu ";
    std::vector<std::string> const expected{sampling, sampling,
        "stride:float pre_nms_top_k post_nms_top_k nms_iou:float min_size_px:float ",
        "nms_iou:float score_threshold:float max_kept "};
    std::vector<std::string> found;
    for (OwnCreator* const creator : creators)
    {
        CHECK(std::string(creator->getPluginVersion()) == "1");
        CHECK(std::string(creator->getPluginNamespace()) == "lstfe");
        PluginFieldCollection const* const fields = creator->getFieldNames();
        std::string names;
        for (int32_t i = 0; i < fields->nbFields; ++i)
        {
            bool const isFloat = fields->fields[i].type == PluginFieldType::kFLOAT32;
            CHECK(isFloat || fields->fields[i].type == PluginFieldType::kINT32);
            names += std::string(fields->fields[i].name) + (isFloat ? ":float " : " ");
        }
        found.push_back(names);
    }
    CHECK(found == expected);
}

void checkRegistration()
{
    Registry registry;
    CHECK(lstfe_register(&registry));
    CHECK(registry.creators.size() == 4 && registry.names == std::vector<std::string>(4, "lstfe"));
    Registry full;
    full.most = 2;
    CHECK(!lstfe_register(&full));
    CHECK(!lstfe_register(nullptr));
    CHECK(lstfe_tensorrt_version() == NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR);
}

//! The attribute is refused, and the log names it.
void checkRefused(OwnCreator& creator, std::vector<Attribute> const& attributes, char const* name)
{
    gLog.last = "";
    CHECK(create(creator, attributes) == nullptr);
#if NV_TENSORRT_MAJOR > 8 || NV_TENSORRT_MINOR >= 6
    CHECK(gLog.last.find(name) != std::string::npos);
#else
    (void)name;
#endif
}

void checkAttributes(OwnCreator& convolution, OwnCreator& sum)
{
    std::vector<Attribute> const wrong{{"strides", {1}}, {"pads", {1, 1}}, {"group", {0}}, {"dilations", {0, 1}},
        {"pads", {0, -1, 0, 0}}, {"kernel", {3, 3}}, real("group", 1.F), {"relu", {2}}};
    for (Attribute const& attribute : wrong)
    {
        checkRefused(convolution, {attribute}, attribute.name);
    }
    CHECK(create(sum, {{"offset_group", {2}}}) == nullptr);
    AnyPlugin* const named = create(convolution, {{"plugin_version", {1}}, {"offset_group", {2}}});
    CHECK(named != nullptr);
    destroy(named);
}

void checkShapes(OwnCreator& convolution, OwnCreator& sum)
{
    Builder builder;
    AnyPlugin* plugin = create(convolution, {{"has_bias", {1}}, {"strides", {2, 2}}});
    DimsExprs const features = builder.dims({2, 8, 9, 11});
    DimsExprs const weight = builder.dims({24, 8, 3, 3});
    DimsExprs const offsets = builder.dims({2, 18, 4, 5});
    DimsExprs const bias = builder.dims({24});
    CHECK((shapeOf(*plugin, {features, weight, offsets, bias}, builder) == std::vector<Size>{2, 24, 4, 5}));
    CHECK(shapeOf(*plugin, {features, weight, offsets}, builder).empty());
    CHECK(shapeOf(*plugin, {features, weight, bias, offsets}, builder).empty());
    CHECK(typeOf(*plugin, {DataType::kHALF, DataType::kHALF, DataType::kFLOAT, DataType::kFLOAT}) == DataType::kHALF);
    destroy(plugin);
    plugin = create(sum, {{"kernel_shape", {3, 3}}});
    CHECK((shapeOf(*plugin, {builder.dims({2, 9, 11, 72}), offsets}, builder) == std::vector<Size>{2, 8, 4, 5}));
    destroy(plugin);
}

std::vector<Attribute> proposalAttributes(int32_t before, int32_t after)
{
    return {real("stride", 8.F), {"pre_nms_top_k", {before}}, {"post_nms_top_k", {after}}, real("nms_iou", 0.7F),
        real("min_size_px", 0.F)};
}

std::vector<Attribute> suppressionAttributes(int32_t most)
{
    return {real("nms_iou", 0.5F), real("score_threshold", 0.25F), {"max_kept", {most}}};
}

//! None of the `good` may be left out, and none of the `wrong` takes the place of one.
void checkNeeded(OwnCreator& creator, std::vector<Attribute> const& good, std::vector<Attribute> const& wrong)
{
    for (size_t i = 0; i < good.size(); ++i)
    {
        std::vector<Attribute> fewer = good;
        fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
        checkRefused(creator, fewer, good[i].name);
    }
    for (Attribute const& attribute : wrong)
    {
        std::vector<Attribute> given = good;
        given.push_back(attribute);
        checkRefused(creator, given, attribute.name);
    }
}

void checkProposalAttributes(OwnCreator& creator)
{
    checkNeeded(creator, proposalAttributes(6000, 300),
        {real("stride", 0.F), {"stride", {8}}, {"pre_nms_top_k", {0}}, {"pre_nms_top_k", {16385}},
            real("post_nms_top_k", 300.F), real("nms_iou", 1.5F), real("nms_iou", std::nanf("")),
            real("min_size_px", -1.F)});
}

void checkSuppressionAttributes(OwnCreator& creator)
{
    checkNeeded(creator, suppressionAttributes(100),
        {real("nms_iou", -0.5F), {"nms_iou", {1}}, real("score_threshold", std::nanf("")),
            real("score_threshold", std::numeric_limits<float>::infinity()), {"max_kept", {0}},
            {"max_kept", {(1 << 26) + 1}}, real("max_kept", 5.F)});
}

void checkProposalShapes(OwnCreator& creator)
{
    Builder builder;
    AnyPlugin* const plugin = create(creator, proposalAttributes(6000, 300));
    CHECK(numOutputsOf(*plugin) == 2);
    DimsExprs const objectness = builder.dims({1, 15, 38, 63});
    DimsExprs const deltas = builder.dims({1, 60, 38, 63});
    DimsExprs const anchors = builder.dims({15, 4});
    DimsExprs const size = builder.dims({2});
    CHECK((shapeOf(*plugin, {objectness, deltas, anchors, size}, builder, 0) == std::vector<Size>{1, 300, 4}));
    CHECK((shapeOf(*plugin, {objectness, deltas, anchors, size}, builder, 1) == std::vector<Size>{1, 300}));
    CHECK(shapeOf(*plugin, {objectness, deltas, anchors}, builder).empty());
    CHECK(shapeOf(*plugin, {anchors, deltas, objectness, size}, builder).empty());
    std::vector<DataType> const types{DataType::kFLOAT, DataType::kFLOAT, DataType::kFLOAT, DataType::kINT32};
    CHECK(typeOf(*plugin, types, 0) == DataType::kFLOAT);
    CHECK(typeOf(*plugin, types, 1) == DataType::kINT32);
    destroy(plugin);
}

//! How many of all types and formats one tensor may have, given the others.
int32_t numAccepted(AnyPlugin& plugin, int32_t position, std::vector<PluginTensorDesc> tensors)
{
    std::vector<DataType> types{DataType::kFLOAT, DataType::kHALF, DataType::kINT8, DataType::kINT32};
#if NV_TENSORRT_MAJOR >= 10
    types.push_back(DataType::kBF16);
#endif
    int32_t accepted = 0;
    for (DataType const type : types)
    {
        for (TensorFormat const format :
            {TensorFormat::kLINEAR, TensorFormat::kHWC8, TensorFormat::kCHW32, TensorFormat::kHWC})
        {
            tensors[static_cast<size_t>(position)] = tensor({1}, type, format);
            accepted += supports(plugin, position, tensors) ? 1 : 0;
        }
    }
    return accepted;
}

//! One row of the table of types and formats: each tensor is taken as it is, and in as many ways as `counts` says.
void checkRow(AnyPlugin& plugin, std::vector<PluginTensorDesc> tensors, std::vector<int32_t> const& counts)
{
    for (size_t i = 0; i < tensors.size(); ++i)
    {
        int32_t const position = static_cast<int32_t>(i);
        CHECK(supports(plugin, position, tensors));
        CHECK(numAccepted(plugin, position, tensors) == counts[i]);
    }
    tensors.pop_back();
    CHECK(!supports(plugin, 0, tensors)); // a tensor is missing
}

PluginTensorDesc whole(std::initializer_list<Size> sizes)
{
    return tensor(sizes, DataType::kINT32);
}

//! Float32 or int32, linear, and nothing else.
void checkFixedFormats(
    OwnCreator& creator, std::vector<Attribute> const& attributes, std::vector<PluginTensorDesc> const& tensors)
{
    AnyPlugin* const plugin = create(creator, attributes);
    checkRow(*plugin, tensors, std::vector<int32_t>(tensors.size(), 1));
    destroy(plugin);
}

void checkSuppressionShapes(OwnCreator& creator)
{
    Builder builder;
    AnyPlugin* const plugin = create(creator, suppressionAttributes(100));
    CHECK(numOutputsOf(*plugin) == 1);
    DimsExprs const boxes = builder.dims({30, 300, 4}), scores = builder.dims({30, 300});
    CHECK((shapeOf(*plugin, {boxes, scores}, builder) == std::vector<Size>{30, 300}));
    CHECK(shapeOf(*plugin, {boxes}, builder).empty());
    CHECK(shapeOf(*plugin, {scores, boxes}, builder).empty());
    CHECK(typeOf(*plugin, {DataType::kFLOAT, DataType::kFLOAT}) == DataType::kINT32);
    destroy(plugin);
}

constexpr bool kHAS_BFLOAT16 = NV_TENSORRT_MAJOR >= 10;

//! Features, weight and output alike: float32 or half linear, half or bfloat16 channels last. The rest float32, linear.
void checkConvolutionFormats(OwnCreator& creator)
{
    AnyPlugin* const plugin = create(creator, {{"has_bias", {1}}, {"has_mask", {1}}});
    std::vector<PluginTensorDesc> allowed{tensor({1}), tensor({1}, DataType::kHALF),
        tensor({1}, DataType::kHALF, TensorFormat::kHWC8)};
#if NV_TENSORRT_MAJOR >= 10
    allowed.push_back(tensor({1}, DataType::kBF16, TensorFormat::kHWC8));
#endif
    for (PluginTensorDesc const& like : allowed)
    {
        PluginTensorDesc const other = tensor({1});
        checkRow(*plugin, {like, like, other, other, other, like}, {kHAS_BFLOAT16 ? 4 : 3, 1, 1, 1, 1, 1});
    }
    destroy(plugin);
}

//! Maps linear, the output of their type in any layout that there is of it. The rest float32, linear.
void checkSumFormats(OwnCreator& creator)
{
    AnyPlugin* const plugin = create(creator, {{"has_bias", {1}}, {"has_mask", {1}}});
    PluginTensorDesc const single = tensor({1}), half = tensor({1}, DataType::kHALF);
    PluginTensorDesc const halfLast = tensor({1}, DataType::kHALF, TensorFormat::kHWC8);
    int32_t const types = kHAS_BFLOAT16 ? 3 : 2;
    checkRow(*plugin, {single, single, single, single, single}, {types, 1, 1, 1, 1});
    checkRow(*plugin, {half, single, single, single, half}, {types, 1, 1, 1, 2});
    checkRow(*plugin, {half, single, single, single, halfLast}, {types, 1, 1, 1, 2});
#if NV_TENSORRT_MAJOR >= 10
    PluginTensorDesc const last = tensor({1}, DataType::kBF16, TensorFormat::kHWC8);
    checkRow(*plugin, {tensor({1}, DataType::kBF16), single, single, single, last}, {types, 1, 1, 1, 1});
#endif
    destroy(plugin);
}

//! What was saved makes the same operator again, and nothing else makes one.
void checkState(OwnCreator& creator, OwnCreator& other, std::vector<Attribute> const& attributes,
    std::vector<Attribute> const& others)
{
    AnyPlugin* const plugin = create(creator, attributes);
    std::vector<char> const state = stateOf(*plugin);
    AnyPlugin* const restored = restore(creator, state);
    CHECK(restored != nullptr);
    CHECK(stateOf(*restored) == state);
    AnyPlugin* const different = create(creator, others);
    CHECK(stateOf(*different) != state);
    for (AnyPlugin* const made : {plugin, restored, different})
    {
        destroy(made);
    }
    CHECK(restore(other, state) == nullptr);
    for (size_t length = 0; length < state.size(); ++length)
    {
        CHECK(restore(creator, {state.begin(), state.begin() + static_cast<std::ptrdiff_t>(length)}) == nullptr);
    }
    std::vector<char> longer = state;
    longer.push_back(0);
    CHECK(restore(creator, longer) == nullptr);
    for (size_t i = 0; i < state.size(); ++i)
    {
        std::vector<char> altered = state;
        altered[i] = static_cast<char>(altered[i] ^ 1);
        CHECK(restore(creator, altered) == nullptr);
    }
}

void checkStates(OwnCreator& convolution, OwnCreator& sum, OwnCreator& proposals, OwnCreator& suppression)
{
    checkState(convolution, sum,
        {{"kernel_shape", {1, 3}}, {"strides", {2, 3}}, {"pads", {1, 2, 3, 4}}, {"dilations", {5, 6}}, {"group", {7}},
            {"offset_group", {8}}, {"has_bias", {1}}, {"has_mask", {1}}, {"relu", {1}}},
        {});
    checkState(proposals, sum, proposalAttributes(6000, 300), proposalAttributes(6000, 299));
    checkState(suppression, sum, suppressionAttributes(100), suppressionAttributes(99));
}

std::vector<float> numbers(size_t count, uint32_t seed)
{
    std::vector<float> result(count);
    for (float& value : result)
    {
        seed = seed * 1664525U + 1013904223U;
        value = static_cast<float>(seed >> 8) / 8388608.F - 1.F;
    }
    return result;
}

LstfeSampling samplingOf(int32_t height, int32_t width)
{
    return LstfeSampling{1, height, width, 3, 3, 1, 2, 1, 1, 1, 1, 1, 1, 1};
}

bool areClose(std::vector<float> const& first, std::vector<float> const& second)
{
    bool close = first.size() == second.size();
    for (size_t i = 0; i < first.size() && close; ++i)
    {
        close = std::fabs(first[i] - second[i]) <= 1e-5F;
    }
    return close;
}

//! With bias and without mask, and the other way round: the plugin hands each to its place.
void checkConvolution(OwnCreator& creator, bool hasBias)
{
    AnyPlugin* const plugin = create(creator,
        {{"pads", {1, 1, 1, 1}}, {"strides", {1, 2}}, {"has_bias", {hasBias}}, {"has_mask", {!hasBias}},
            {"group", {2}}});
    std::vector<float> features = numbers(4 * 5 * 7, 1), weight = numbers(6 * 2 * 9, 2),
                       offsets = numbers(18 * 5 * 4, 3);
    std::vector<float> extra = numbers(9 * 5 * 4, 4), output(6 * 5 * 4), expected(6 * 5 * 4);
    LstfeDeformConvParams const params{samplingOf(5, 7), 4, 6, 2, 0, LSTFE_FLOAT32, LSTFE_NCHW, 0, 0};
    CHECK(lstfe_deform_conv2d_host(&params, features.data(), offsets.data(), hasBias ? nullptr : extra.data(),
              weight.data(), hasBias ? extra.data() : nullptr, expected.data())
        == LSTFE_OK);
    std::vector<PluginTensorDesc> tensors{tensor({1, 4, 5, 7}), tensor({6, 2, 3, 3}), tensor({1, 18, 5, 4}),
        hasBias ? tensor({6}) : tensor({1, 9, 5, 4}), tensor({1, 6, 5, 4})};
    std::vector<void*> memory{features.data(), weight.data(), offsets.data(), extra.data(), output.data()};
    CHECK(workspaceOf(*plugin, tensors) == 0);
    CHECK(run(*plugin, tensors, memory, nullptr) == 0);
    CHECK(areClose(output, expected));
    for (size_t i = 0; i < tensors.size(); ++i)
    {
        std::vector<PluginTensorDesc> wrong = tensors;
        ++wrong[i].dims.d[hasBias && i == 3 ? 0 : 1];
        CHECK(run(*plugin, wrong, memory, nullptr) != 0);
    }
    destroy(plugin);
}

void checkSum(OwnCreator& creator)
{
    AnyPlugin* const plugin = create(
        creator, {{"pads", {1, 1, 1, 1}}, {"strides", {1, 2}}, {"has_bias", {1}}, {"has_mask", {1}}, {"relu", {1}}});
    std::vector<float> maps = numbers(18 * 5 * 7, 1), offsets = numbers(18 * 5 * 4, 3), bias = numbers(2, 5);
    std::vector<float> mask = numbers(9 * 5 * 4, 4), output(2 * 5 * 4), expected(2 * 5 * 4);
    LstfeSampledSumParams const params{samplingOf(5, 7), 2, 1, LSTFE_FLOAT32, LSTFE_NCHW};
    CHECK(lstfe_sampled_sum_host(&params, maps.data(), offsets.data(), mask.data(), bias.data(), expected.data())
        == LSTFE_OK);
    std::vector<PluginTensorDesc> const tensors{
        tensor({1, 5, 7, 18}), tensor({1, 18, 5, 4}), tensor({2}), tensor({1, 9, 5, 4}), tensor({1, 2, 5, 4})};
    std::vector<void*> const memory{maps.data(), offsets.data(), bias.data(), mask.data(), output.data()};
    CHECK(run(*plugin, tensors, memory, nullptr) == 0);
    CHECK(areClose(output, expected));
    for (size_t i = 0; i < tensors.size(); ++i)
    {
        std::vector<PluginTensorDesc> wrong = tensors;
        ++wrong[i].dims.d[wrong[i].dims.nbDims - 1];
        CHECK(run(*plugin, wrong, memory, nullptr) != 0);
    }
    destroy(plugin);
}

//! Channels last in half precision with a split sum: all memory is what the plugin asked for.
void checkTensorCores(OwnCreator& creator)
{
    AnyPlugin* const plugin = create(creator, {{"pads", {1, 1, 1, 1}}});
    constexpr auto kHALF = DataType::kHALF;
    constexpr auto kHWC8 = TensorFormat::kHWC8;
    std::vector<PluginTensorDesc> const tensors{tensor({1, 64, 4, 4}, kHALF, kHWC8),
        tensor({8, 64, 3, 3}, kHALF, kHWC8), tensor({1, 18, 4, 4}), tensor({1, 8, 4, 4}, kHALF, kHWC8)};
    struct alignas(16) Vector
    {
        uint16_t halves[8];
    };
    constexpr uint16_t kONE = 0x3c00U;
    Vector const ones{{kONE, kONE, kONE, kONE, kONE, kONE, kONE, kONE}};
    std::vector<Vector> features(64 * 16 / 8, ones), weight(8 * 9 * 64 / 8, ones), output(16);
    std::vector<float> offsets(18 * 16, 0.F);
    std::vector<Vector> workspace(workspaceOf(*plugin, tensors) / sizeof(Vector));
    CHECK(!workspace.empty());
    CHECK(
        run(*plugin, tensors, {features.data(), weight.data(), offsets.data(), output.data()}, workspace.data()) == 0);
    CHECK(output[5].halves[0] == 0x6080U); // 9 * 64 inside
    CHECK(output[0].halves[7] == 0x5c00U); // 4 * 64 in a corner
    destroy(plugin);
}

//! No tensor may be larger than the others say.
void checkSizesAreHeldTo(AnyPlugin& plugin, std::vector<PluginTensorDesc> const& tensors,
    std::vector<void*> const& memory, void* workspace)
{
    for (size_t i = 0; i < tensors.size(); ++i)
    {
        for (int32_t axis = 0; axis < tensors[i].dims.nbDims; ++axis)
        {
            std::vector<PluginTensorDesc> wrong = tensors;
            ++wrong[i].dims.d[axis];
            CHECK(run(plugin, wrong, memory, workspace) != 0);
        }
    }
}

//! All memory is what the plugin asked for; sizes that do not agree are refused.
void checkProposals(OwnCreator& creator)
{
    AnyPlugin* const plugin = create(creator, proposalAttributes(100, 20));
    std::vector<float> objectness = numbers(3 * 5 * 7, 1), deltas = numbers(12 * 5 * 7, 2);
    std::vector<float> anchors{-4.F, -4.F, 4.F, 4.F, -8.F, -4.F, 8.F, 4.F, -4.F, -8.F, 4.F, 8.F};
    std::vector<int32_t> size{36, 50}, valid(20, -1), expectedValid(20);
    std::vector<float> boxes(20 * 4), expected(20 * 4);
    LstfeProposalParams const params{3, 5, 7, 8.F, 100, 20, 0.7F, 0.F};
    CHECK(lstfe_proposals_host(&params, objectness.data(), deltas.data(), anchors.data(), size.data(), expected.data(),
              expectedValid.data())
        == LSTFE_OK);
    std::vector<PluginTensorDesc> const tensors{tensor({1, 3, 5, 7}), tensor({1, 12, 5, 7}), tensor({3, 4}),
        whole({2}), tensor({1, 20, 4}), whole({1, 20})};
    std::vector<char> workspace(workspaceOf(*plugin, tensors));
    CHECK(workspace.size() == lstfe_proposals_workspace(&params));
    std::vector<void*> const memory{
        objectness.data(), deltas.data(), anchors.data(), size.data(), boxes.data(), valid.data()};
    CHECK(run(*plugin, tensors, memory, nullptr) == LSTFE_SMALL_WORKSPACE);
    CHECK(run(*plugin, tensors, memory, workspace.data()) == 0);
    CHECK(boxes == expected && valid == expectedValid && valid[10] == 1);
    checkSizesAreHeldTo(*plugin, tensors, memory, workspace.data());
    destroy(plugin);
}

void checkSuppression(OwnCreator& creator)
{
    AnyPlugin* const plugin = create(creator, suppressionAttributes(7));
    std::vector<float> scores = numbers(3 * 90, 1), boxes = numbers(3 * 90 * 4, 2);
    for (size_t i = 0; i < boxes.size(); i += 4) // from a corner to one beyond it
    {
        boxes[i + 2] = boxes[i] + boxes[i + 2] + 1.F;
        boxes[i + 3] = boxes[i + 1] + boxes[i + 3] + 1.F;
    }
    std::vector<int32_t> marks(3 * 90, -1), expected(3 * 90);
    LstfeSuppressionParams const params{3, 90, 0.5F, 0.25F, 7};
    CHECK(lstfe_suppression_host(&params, boxes.data(), scores.data(), expected.data()) == LSTFE_OK);
    std::vector<PluginTensorDesc> const tensors{tensor({3, 90, 4}), tensor({3, 90}), whole({3, 90})};
    std::vector<char> workspace(workspaceOf(*plugin, tensors));
    CHECK(workspace.size() == lstfe_suppression_workspace(&params));
    std::vector<void*> const memory{boxes.data(), scores.data(), marks.data()};
    CHECK(run(*plugin, tensors, memory, nullptr) == LSTFE_SMALL_WORKSPACE);
    CHECK(run(*plugin, tensors, memory, workspace.data()) == 0);
    CHECK(marks == expected);
    CHECK(std::accumulate(marks.begin(), marks.end(), 0) == 3 * 7);
    checkSizesAreHeldTo(*plugin, tensors, memory, workspace.data());
    destroy(plugin);
}

} // namespace

int main()
{
#if NV_TENSORRT_MAJOR > 8 || NV_TENSORRT_MINOR >= 6
    setLoggerFinder(&gFinder);
#endif
    checkCreators();
    checkRegistration();
    OwnCreator& convolution = *allCreators()[0];
    OwnCreator& sum = *allCreators()[1];
    OwnCreator& proposals = *allCreators()[2];
    OwnCreator& suppression = *allCreators()[3];
    checkAttributes(convolution, sum);
    checkShapes(convolution, sum);
    checkConvolutionFormats(convolution);
    checkSumFormats(sum);
    checkStates(convolution, sum, proposals, suppression);
    checkConvolution(convolution, true);
    checkConvolution(convolution, false);
    checkSum(sum);
    checkTensorCores(convolution);
    checkProposalAttributes(proposals);
    checkProposalShapes(proposals);
    checkFixedFormats(proposals, proposalAttributes(6000, 300),
        {tensor({1}), tensor({1}), tensor({1}), whole({1}), tensor({1}), whole({1})});
    checkProposals(proposals);
    checkSuppressionAttributes(suppression);
    checkSuppressionShapes(suppression);
    checkFixedFormats(suppression, suppressionAttributes(100), {tensor({1}), tensor({1}), whole({1})});
    checkSuppression(suppression);
    std::printf("%d.%d %d checks\n", NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, gChecks);
    return 0;
}
