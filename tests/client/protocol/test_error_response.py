"""Error responses of servers are classified: about the account, busy, about length, or about one prompt."""

from __future__ import annotations

import pytest

from harness.client.protocol.error_response import Refusal, TransientError, classify_error

ACCOUNT = [
    (402, {"error": {"message": "Insufficient credits", "code": 402}}),
    (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}),
    (400, {"error": {"message": "Your credit balance is too low to access the API."}}),
    (400, {"error": {"message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}}),
    (400, {"error": {"message": "User location is not supported for the API use."}}),
    (400, {"error": {"code": "Arrearage", "message": "Access denied, your account is overdue."}}),
    (401, {"error": {"message": "Incorrect API key provided"}}),
    (403, {"detail": "Forbidden"}),
    (451, "Unavailable for legal reasons"),
]
BUSY = [
    (409, {"error": {"message": "The model is being loaded"}}),
    (424, {"error": {"message": "Failed dependency"}}),
    (429, {"error": {"message": "slow down"}}),
    (498, {"error": {"message": "Flex tier capacity exceeded"}}),
    (503, "upstream connect error"),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    (400, {"error": {"message": "Rate limit reached, please try again in 2s"}}),
    (400, {"message": "Model is currently loading"}),
]
CONTEXT = [
    (400, {"error": {"message": "This model's maximum context length is 4096 tokens. However, you requested 5000."}}),
    (400, {"error": {"message": "prompt is too long: 213462 tokens > 200000 maximum"}}),
    (422, {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 1500"}),
    (400, {"error": {"message": "Please reduce the length of the messages or completion."}}),
    (413, {"error": {"message": "Request too large"}}),
    (429, {"error": {"message": "Request too large for gpt-4 in organization on tokens per min (TPM): Limit 10000"}}),
    (500, {"error": {"message": "the request exceeds the available context size"}}),
    (400, [{"error": {"code": 400, "message": "The input token count (9000) exceeds the maximum number of tokens"}}]),
]
ANSWER = [
    (400, {"error": {"param": "max_tokens", "message": "max_tokens is too large: 1055. It supports at most 512."}}),
    (400, {"error": {"message": "max_tokens: 1055 > 512, which is the maximum allowed number of output tokens"}}),
    (400, {"error": {"message": "`max_completion_tokens` must be less than or equal to `512`"}}),
    (422, {"detail": [{"loc": ["body", "max_tokens"], "msg": "Input should be less than or equal to 512"}]}),
]
PROMPT = [
    (400, {"error": {"message": "System role not supported"}}),
    (400, {"error": {"message": "The response was filtered due to the prompt triggering our content policy"}}),
    (500, {"error": {"message": "jinja2.exceptions.TemplateError: Conversation roles must alternate"}}),
    (422, {"detail": "no"}),
]


@pytest.mark.parametrize(("status", "body"), ACCOUNT)
def test_an_error_about_the_account_ends_the_run(status: int, body: object) -> None:
    error = classify_error(status, body, None, "here")
    assert isinstance(error, Refusal)
    assert error.is_about_account
    assert error.is_systematic
    assert not error.is_context
    assert not error.is_answer_limit


@pytest.mark.parametrize(("status", "body"), BUSY)
def test_a_busy_server_is_a_transient_error_with_its_pause(status: int, body: object) -> None:
    error = classify_error(status, body, "3", "here")
    assert isinstance(error, TransientError)
    assert (error.kind, error.retry_after) == ("busy", 3.0)


@pytest.mark.parametrize(("status", "body"), CONTEXT)
def test_a_prompt_beyond_the_context_is_recognised(status: int, body: object) -> None:
    error = classify_error(status, body, None, "here")
    assert isinstance(error, Refusal)
    assert error.is_context
    assert not error.is_systematic


@pytest.mark.parametrize(("status", "body"), ANSWER)
def test_a_limit_on_answers_is_recognised(status: int, body: object) -> None:
    error = classify_error(status, body, None, "here")
    assert isinstance(error, Refusal)
    assert error.is_answer_limit
    assert not error.is_systematic


@pytest.mark.parametrize(("status", "body"), PROMPT)
def test_an_error_about_the_prompt_is_a_refusal_of_that_request_only(status: int, body: object) -> None:
    error = classify_error(status, body, None, "here")
    assert isinstance(error, Refusal)
    assert not error.is_systematic
    assert not error.is_context


@pytest.mark.parametrize("status", [404, 405])
def test_a_missing_route_or_model_is_a_systematic_refusal(status: int) -> None:
    error = classify_error(status, {"detail": "Not Found"}, None, "here")
    assert isinstance(error, Refusal)
    assert error.is_systematic
    assert not error.is_about_account


@pytest.mark.parametrize("status", [500, 502, 504, 520, 599])
def test_other_server_errors_are_transient(status: int) -> None:
    error = classify_error(status, "<html>Bad gateway</html>", None, "here")
    assert isinstance(error, TransientError)
    assert error.kind == "server"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": {"message": "Provider returned error", "code": 502}}, "server"),
        ({"error": {"message": "slow down", "code": 429}}, "busy"),
        ({"error": "out of memory"}, "server"),
        ({"error": {"message": "Insufficient credits", "code": 402}}, "refused"),
        ({"error": {"message": "System role not supported", "code": 400}}, "refused"),
    ],
)
def test_an_error_with_status_200_is_classified_by_its_own_code(body: object, kind: str) -> None:
    error = classify_error(200, body, None, "here")
    assert (error.kind if isinstance(error, TransientError) else "refused") == kind


def test_a_message_does_not_show_the_prompt_that_an_error_repeats() -> None:
    body = {"detail": [{"loc": ["body", "messages"], "msg": "Input should be a list", "input": "secret prompt"}]}
    assert "secret" not in str(classify_error(422, body, None, "here"))


@pytest.mark.parametrize(
    ("message", "lacks"),
    [
        ("As of transformers v4.44, default chat template is no longer allowed, so you must provide a template", True),
        ("Cannot use chat template functions because tokenizer.chat_template is not set", True),
        ("Template error: template not error", False),
        ("This model does not have a chat template", True),
        ("Conversation roles must alternate user/assistant", False),
        ("Chat template is not supported for the system role", False),
    ],
)
def test_a_missing_chat_template_is_recognised(message: str, lacks: bool) -> None:
    error = classify_error(400, {"error": {"message": message}}, None, "here")
    assert isinstance(error, Refusal)
    assert error.lacks_template == lacks
