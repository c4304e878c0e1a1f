-- Sends POST /items, each with a unique name. The argument is a prefix that no other run has.
local prefix, count = "", 0

function init(arguments)
  prefix = arguments[1]
end

function request()
  count = count + 1
  local body = string.format('{"name": "%s-%d", "description": "a lamp"}', prefix, count)
  return wrk.format("POST", "/items", {["Content-Type"] = "application/json"}, body)
end
