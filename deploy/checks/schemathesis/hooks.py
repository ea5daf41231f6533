"""Makes requests meet what there is, and checks that no request of the described form is refused for its form."""

import schemathesis

# What the node has: without it nearly every request would end at an unknown tenant.
TENANT = "acme"
# The one that is deleted.
DELETED = "gone"


def is_positive(case):
    return case.meta is not None and case.meta.generation.mode.is_positive


@schemathesis.hook
def map_case(context, case):
    """Names a tenant that there is, and says the same in path and body."""
    if not is_positive(case):
        return case
    if "tenant" in (case.path_parameters or {}):
        deletes = case.method.upper() == "DELETE" and case.path == "/v1/tenants/{tenant}"
        case.path_parameters["tenant"] = DELETED if deletes else TENANT
    if case.method.upper() == "PUT" and case.path == "/v1/tenants/{tenant}" and isinstance(case.body, dict):
        case.body["id"] = case.path_parameters["tenant"]
    return case


@schemathesis.check
def form_is_as_described(ctx, response, case):
    """No request of the described form is refused for its form."""
    if not is_positive(case) or response.status_code < 400:
        return None
    try:
        code = response.json().get("code")
    except ValueError:
        raise AssertionError("a refusal that is no problem document") from None
    if response.status_code in (400, 415) or code == "malformed":
        raise AssertionError(f"refused for its form: {response.text}")
    return None
