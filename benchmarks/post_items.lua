-- POST /items, each with a name that nobody else has; the argument sets this run's apart.
local prefix, count = "", 0

function init(arguments)
  prefix = arguments[1]
end

function request()
  count = count + 1
  local body = string.format('{"name": "%s-%d", "description": "a lamp"}', prefix, count)
  return wrk.format("POST", "/items", {["Content-Type"] = "application/json"}, body)
end
