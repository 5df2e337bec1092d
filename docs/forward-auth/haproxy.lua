-- Asks Latchkey whether a request may pass. haproxy.cfg loads this script.

local caller = {
    "remote-user", "remote-email", "remote-email-verified", "remote-name", "remote-scopes", "remote-key",
}
local refusal = { "content-type", "www-authenticate", "retry-after" }

core.register_action("latchkey", { "http-req" }, function(txn)
    local client = txn.http:req_get_headers()
    -- Of the client's headers, send only those named here.
    local answer = core.httpclient():get {
        url = "http://latchkey/authz",
        dst = "abns@latchkey",
        headers = {
            ["token"] = client["token"],
            ["authorization"] = client["authorization"],
            ["x-original-method"] = { txn.sf:method() },
            ["x-original-uri"] = { txn.sf:pathq() },
            ["x-original-host"] = client["host"],
            ["x-forwarded-for"] = { txn.sf:src() },
        },
    }
    if answer.status ~= 200 then
        local headers = {}
        for _, name in ipairs(refusal) do
            headers[name] = answer.headers and answer.headers[name] and { answer.headers[name][0] }
        end
        -- If there is no response, the status is 0.
        local status = answer.status > 0 and answer.status or 503
        txn:done(txn:reply { status = status, headers = headers, body = answer.body })
    end
    for _, name in ipairs(caller) do
        if answer.headers[name] then
            txn.http:req_set_header(name, answer.headers[name][0])
        end
    end
    txn:set_var("txn.latchkey", "pass")
end, 0)
