#include "attributes.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <sstream>

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

namespace lstfe
{
namespace
{

bool isFloat(Attribute const& attribute)
{
    return std::holds_alternative<float*>(attribute.numbers);
}

//! The numbers as they lie in memory: all are 32 bits.
void* addressOf(Attribute const& attribute)
{
    return isFloat(attribute) ? static_cast<void*>(std::get<float*>(attribute.numbers))
                              : static_cast<void*>(std::get<int32_t*>(attribute.numbers));
}

double valueAt(Attribute const& attribute, int32_t index)
{
    // An int32_t is whole as a double, but not as the float that the two have in common.
    return isFloat(attribute) ? static_cast<double>(std::get<float*>(attribute.numbers)[index])
                              : static_cast<double>(std::get<int32_t*>(attribute.numbers)[index]);
}

PluginFieldType typeOf(Attribute const& attribute)
{
    return isFloat(attribute) ? PluginFieldType::kFLOAT32 : PluginFieldType::kINT32;
}

bool copyNumbers(PluginField const& given, Attribute const& attribute)
{
    if (given.length != attribute.length || given.data == nullptr)
    {
        return false;
    }
    if (given.type == typeOf(attribute))
    {
        std::memcpy(addressOf(attribute), given.data, sizeof(int32_t) * static_cast<size_t>(attribute.length));
        return true;
    }
#if NV_TENSORRT_MAJOR >= 10
    if (given.type == PluginFieldType::kINT64 && !isFloat(attribute))
    {
        constexpr int64_t kLEAST = std::numeric_limits<int32_t>::min();
        constexpr int64_t kMOST = std::numeric_limits<int32_t>::max();
        for (int32_t i = 0; i < attribute.length; ++i)
        {
            int64_t const value = static_cast<int64_t const*>(given.data)[i];
            std::get<int32_t*>(attribute.numbers)[i] = static_cast<int32_t>(std::clamp(value, kLEAST, kMOST));
        }
        return true;
    }
#endif
    return false;
}

bool readField(PluginField const& given, Attributes const& attributes, char const* op)
{
    for (Attribute const& attribute : attributes)
    {
        if (std::strcmp(given.name, attribute.name) == 0)
        {
            bool const isRead = copyNumbers(given, attribute);
            if (!isRead)
            {
                std::string const kind(isFloat(attribute) ? "float32 numbers" : "integers");
                report(std::string(op) + ": attribute " + attribute.name + " has " + std::to_string(given.length)
                    + " values or no " + kind + ", expected " + std::to_string(attribute.length) + " " + kind);
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

bool areSound(Attributes const& attributes, char const* op)
{
    bool sound = true;
    for (Attribute const& attribute : attributes)
    {
        for (int32_t i = 0; i < attribute.length; ++i)
        {
            double const value = valueAt(attribute, i);
            if (!(value >= attribute.least && value <= attribute.most)) // so that NaN is none
            {
                std::ostringstream line;
                line << op << ": attribute " << attribute.name << " is " << value << ", expected " << attribute.least
                     << " to " << attribute.most;
                report(line.str());
                sound = false;
            }
        }
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
    switch (kind)
    {
    case Kind::kDEFORM_CONV: return "LstfeDeformConv2d";
    case Kind::kSAMPLED_SUM: return "LstfeSampledSum";
    case Kind::kPROPOSALS: return "LstfeProposals";
    case Kind::kSUPPRESSION: return "LstfeSuppression";
    }
    return "";
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

std::vector<PluginField> fieldsOf(Attributes const& attributes)
{
    std::vector<PluginField> fields;
    for (Attribute const& attribute : attributes)
    {
        fields.emplace_back(attribute.name, nullptr, typeOf(attribute), attribute.length);
    }
    return fields;
}

bool readFields(Kind kind, Attributes const& attributes, nvinfer1::PluginFieldCollection const& fields)
{
    for (int32_t i = 0; i < fields.nbFields; ++i)
    {
        if (!readField(fields.fields[i], attributes, nameOf(kind)))
        {
            return false;
        }
    }
    return areSound(attributes, nameOf(kind));
}

std::vector<uint8_t> writeState(Kind kind, Attributes const& attributes)
{
    std::vector<uint32_t> words{kMAGIC, kSTATE_VERSION, 0, static_cast<uint32_t>(kind)};
    for (Attribute const& attribute : attributes)
    {
        size_t const length = static_cast<size_t>(attribute.length);
        words.resize(words.size() + length);
        std::memcpy(&words[words.size() - length], addressOf(attribute), sizeof(uint32_t) * length);
    }
    words[2] = static_cast<uint32_t>(sizeof(uint32_t) * (words.size() + 1));
    words.push_back(checksum(words, words.size()));
    std::vector<uint8_t> bytes(sizeof(uint32_t) * words.size());
    std::memcpy(bytes.data(), words.data(), bytes.size());
    return bytes;
}

bool readState(Kind kind, Attributes const& attributes, void const* data, size_t length)
{
    size_t const expected = writeState(kind, attributes).size();
    std::vector<uint32_t> words(expected / sizeof(uint32_t));
    std::string const op(nameOf(kind));
    if (data == nullptr || length < sizeof(uint32_t) * kHEADER_WORDS)
    {
        report(op + ": saved state of " + std::to_string(length) + " bytes is cut short; build the engine again");
        return false;
    }
    std::memcpy(words.data(), data, sizeof(uint32_t) * kHEADER_WORDS);
    if (words[0] != kMAGIC || words[1] != kSTATE_VERSION)
    {
        report(op + ": saved state is of another version of the plugin, expected format "
            + std::to_string(kSTATE_VERSION) + "; build the engine again");
        return false;
    }
    if (length != expected || words[2] != expected || words[3] != static_cast<uint32_t>(kind))
    {
        report(op + ": saved state has " + std::to_string(length) + " bytes, expected " + std::to_string(expected)
            + " of this operator; build the engine again");
        return false;
    }
    std::memcpy(words.data(), data, expected);
    if (words.back() != checksum(words, words.size() - 1))
    {
        report(op + ": saved state is damaged; build the engine again");
        return false;
    }
    size_t next = kHEADER_WORDS;
    for (Attribute const& attribute : attributes)
    {
        std::memcpy(addressOf(attribute), &words[next], sizeof(uint32_t) * static_cast<size_t>(attribute.length));
        next += static_cast<size_t>(attribute.length);
    }
    return areSound(attributes, nameOf(kind));
}

} // namespace lstfe
