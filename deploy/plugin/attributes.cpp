#include "attributes.h"

#include <cstdio>
#include <cstring>

using nvinfer1::PluginFieldType;

namespace lstfe
{
namespace
{

struct Field
{
    char const* name;
    int32_t* values;
    int32_t length;
    int32_t least;
};

constexpr int32_t kNUM_FIELDS = 9;

//! The one list of attributes: names as in ONNX, and the least sound value.
std::array<Field, kNUM_FIELDS> fieldsOf(Attributes& a)
{
    return {{{"kernel_shape", a.kernelShape.data(), 2, 1}, {"strides", a.strides.data(), 2, 1},
        {"pads", a.pads.data(), 4, 0}, {"dilations", a.dilations.data(), 2, 1}, {"group", &a.group, 1, 1},
        {"offset_group", &a.offsetGroup, 1, 1}, {"has_bias", &a.hasBias, 1, 0}, {"has_mask", &a.hasMask, 1, 0},
        {"relu", &a.relu, 1, 0}}};
}

bool copyNumbers(nvinfer1::PluginField const& given, Field const& field)
{
    if (given.length != field.length || given.data == nullptr)
    {
        return false;
    }
    if (given.type == PluginFieldType::kINT32)
    {
        std::memcpy(field.values, given.data, sizeof(int32_t) * static_cast<size_t>(field.length));
        return true;
    }
#if NV_TENSORRT_MAJOR >= 10
    if (given.type == PluginFieldType::kINT64)
    {
        for (int32_t i = 0; i < field.length; ++i)
        {
            field.values[i] = static_cast<int32_t>(static_cast<int64_t const*>(given.data)[i]);
        }
        return true;
    }
#endif
    return false;
}

bool readField(nvinfer1::PluginField const& given, Attributes& attributes, char const* op)
{
    for (Field const& field : fieldsOf(attributes))
    {
        if (std::strcmp(given.name, field.name) == 0)
        {
            bool const isRead = copyNumbers(given, field);
            if (!isRead)
            {
                report(std::string(op) + ": attribute " + field.name + " has " + std::to_string(given.length)
                    + " values or no integers, expected " + std::to_string(field.length) + " integers");
            }
            return isRead;
        }
    }
    bool const isOnnxs
        = std::strcmp(given.name, "plugin_version") == 0 || std::strcmp(given.name, "plugin_namespace") == 0;
    if (!isOnnxs)
    {
        report(std::string(op) + ": unknown attribute " + given.name);
    }
    return isOnnxs;
}

bool areSound(Kind kind, Attributes attributes)
{
    bool sound = true;
    for (Field const& field : fieldsOf(attributes))
    {
        for (int32_t i = 0; i < field.length; ++i)
        {
            if (field.values[i] < field.least)
            {
                report(std::string(nameOf(kind)) + ": attribute " + field.name + " is "
                    + std::to_string(field.values[i]) + ", expected " + std::to_string(field.least) + " or more");
                sound = false;
            }
        }
    }
    if (kind == Kind::kSAMPLED_SUM && (attributes.group != 1 || attributes.offsetGroup != 1))
    {
        report(std::string(nameOf(kind)) + ": group and offset_group must be 1");
        sound = false;
    }
    return sound;
}

constexpr uint32_t kMAGIC = 0x4654534cU; // "LSTF"
constexpr uint32_t kSTATE_VERSION = 1;
constexpr size_t kHEADER_WORDS = 4; // magic, version, bytes in all, kind

uint32_t checksum(std::vector<uint32_t> const& words, size_t count)
{
    uint32_t hash = 2166136261U; // FNV-1a, by words
    for (size_t i = 0; i < count; ++i)
    {
        hash = (hash ^ words[i]) * 16777619U;
    }
    return hash;
}

nvinfer1::ILogger* (*gFindLogger)() = nullptr;

} // namespace

char const* nameOf(Kind kind)
{
    return kind == Kind::kDEFORM_CONV ? "LstfeDeformConv2d" : "LstfeSampledSum";
}

void setLogger(nvinfer1::ILogger* (*find)())
{
    gFindLogger = find;
}

void report(std::string const& message)
{
    nvinfer1::ILogger* const logger = gFindLogger == nullptr ? nullptr : gFindLogger();
    if (logger != nullptr)
    {
        logger->log(nvinfer1::ILogger::Severity::kERROR, message.c_str());
        return;
    }
    std::fprintf(stderr, "%s\n", message.c_str());
}

nvinfer1::PluginFieldCollection const& attributeFields()
{
    static std::vector<nvinfer1::PluginField> const fields = []
    {
        Attributes attributes;
        std::vector<nvinfer1::PluginField> all;
        for (Field const& field : fieldsOf(attributes))
        {
            all.emplace_back(field.name, nullptr, PluginFieldType::kINT32, field.length);
        }
        return all;
    }();
    static nvinfer1::PluginFieldCollection const collection{static_cast<int32_t>(fields.size()), fields.data()};
    return collection;
}

std::optional<Attributes> readAttributes(Kind kind, nvinfer1::PluginFieldCollection const& fields)
{
    Attributes attributes;
    for (int32_t i = 0; i < fields.nbFields; ++i)
    {
        if (!readField(fields.fields[i], attributes, nameOf(kind)))
        {
            return std::nullopt;
        }
    }
    return areSound(kind, attributes) ? std::optional<Attributes>(attributes) : std::nullopt;
}

std::vector<uint8_t> writeState(Kind kind, Attributes const& attributes)
{
    Attributes copy = attributes;
    std::vector<uint32_t> words{kMAGIC, kSTATE_VERSION, 0, static_cast<uint32_t>(kind)};
    for (Field const& field : fieldsOf(copy))
    {
        for (int32_t i = 0; i < field.length; ++i)
        {
            words.push_back(static_cast<uint32_t>(field.values[i]));
        }
    }
    words[2] = static_cast<uint32_t>(sizeof(uint32_t) * (words.size() + 1));
    words.push_back(checksum(words, words.size()));
    std::vector<uint8_t> bytes(sizeof(uint32_t) * words.size());
    std::memcpy(bytes.data(), words.data(), bytes.size());
    return bytes;
}

std::optional<Attributes> readState(Kind kind, void const* data, size_t length)
{
    size_t const expected = writeState(kind, Attributes{}).size();
    std::vector<uint32_t> words(expected / sizeof(uint32_t));
    std::string const op(nameOf(kind));
    if (data == nullptr || length < sizeof(uint32_t) * kHEADER_WORDS)
    {
        report(op + ": saved state of " + std::to_string(length) + " bytes is cut short; build the engine again");
        return std::nullopt;
    }
    std::memcpy(words.data(), data, sizeof(uint32_t) * kHEADER_WORDS);
    if (words[0] != kMAGIC || words[1] != kSTATE_VERSION)
    {
        report(op + ": saved state is of another version of the plugin, expected format "
            + std::to_string(kSTATE_VERSION) + "; build the engine again");
        return std::nullopt;
    }
    if (length != expected || words[2] != expected || words[3] != static_cast<uint32_t>(kind))
    {
        report(op + ": saved state has " + std::to_string(length) + " bytes, expected " + std::to_string(expected)
            + " of this operator; build the engine again");
        return std::nullopt;
    }
    std::memcpy(words.data(), data, expected);
    if (words.back() != checksum(words, words.size() - 1))
    {
        report(op + ": saved state is damaged; build the engine again");
        return std::nullopt;
    }
    Attributes attributes;
    size_t next = kHEADER_WORDS;
    for (Field const& field : fieldsOf(attributes))
    {
        for (int32_t i = 0; i < field.length; ++i)
        {
            field.values[i] = static_cast<int32_t>(words[next++]);
        }
    }
    return areSound(kind, attributes) ? std::optional<Attributes>(attributes) : std::nullopt;
}

} // namespace lstfe
