-- A connection per request, and the result as one line of JSON on stdout. An answer that is an error, such as a proxy's
-- 503, is no request served.
wrk.headers["Connection"] = "close"

local percentiles = {1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 99.99}

function done(summary, latency, requests)
   local values = {}
   for _, p in ipairs(percentiles) do
      values[#values + 1] = string.format('"%g":%.3f', p, latency:percentile(p) / 1000)
   end
   local errors = {}
   for _, kind in ipairs({"connect", "read", "write", "status", "timeout"}) do
      errors[#errors + 1] = string.format('"%s":%d', kind, summary.errors[kind])
   end
   io.write(string.format(
      '{"requests":%d,"seconds":%.6f,"latency_ms":{%s,"max":%.3f},"errors":{%s},"answers":%d,"bytes":%d}\n',
      summary.requests - summary.errors.status, summary.duration / 1e6, table.concat(values, ","), latency.max / 1000,
      table.concat(errors, ","), summary.requests, summary.bytes))
end
