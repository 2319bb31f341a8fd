-- heddle/layers.lua: constructors for the layers of h.model "sequential"; each returns a plain table.
--   local L = require "heddle.layers"
--   h.model "sequential" { batch.image, layers = { L.conv2d { channels = 32, kernel = 3 }, L.relu {}, L.flatten {}, L.linear { features = 10 } } }

local layers = {}

local types = { "conv2d", "linear", "batch_norm", "max_pool", "avg_pool", "global_avg_pool", "relu", "gelu", "sigmoid", "tanh", "softmax",
                "dropout", "flatten", "residual" }

for _, name in ipairs (types) do
  layers[name] = function (options)
    local layer = { type = name }
    for key, value in pairs (options or {}) do layer[key] = value end
    return layer
  end
end

-- Joins lists of layers into one list: layers.chain (block (1, 32), block (32, 64), { L.flatten {} })
function layers.chain (...)
  local all = {}
  for _, list in ipairs { ... } do
    for _, layer in ipairs (list) do all[#all + 1] = layer end
  end
  return all
end

-- Convolution without bias, batch norm, relu: the usual block.
function layers.conv_bn (channels, kernel, stride)
  kernel = kernel or 3
  return { layers.conv2d { channels = channels, kernel = kernel, stride = stride or 1, padding = kernel // 2, bias = false },
           layers.batch_norm {}, layers.relu {} }
end

return layers
