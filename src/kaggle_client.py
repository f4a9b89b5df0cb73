"""Kaggle's own client, logged in, with its errors as sentences.

    api = logged_in()                                   # kaggle.api.kaggle_api_extended.KaggleApi
    with asking("the files of the competition"):
        api.competition_list_files(COMPETITION)

`import kaggle` logs in, which may take a network, and so happens in `logged_in` only. BIRDCALL_KAGGLE_ENDPOINT sends the
client to another server than Kaggle's (http://127.0.0.1:8000), as the tests do.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from src.errors import UserError

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi

COMPETITION = "birdsong-recognition"
ENDPOINT_VARIABLE = "BIRDCALL_KAGGLE_ENDPOINT"
RULES_URL = f"https://www.kaggle.com/c/{COMPETITION}/rules"
NO_CREDENTIALS = (
    "no Kaggle credentials, or none that Kaggle accepts: make a token at https://www.kaggle.com/settings/api and put it in "
    "the variable KAGGLE_API_TOKEN or the file ~/.kaggle/access_token"
)


class UnansweredError(UserError):
    """Kaggle could not be reached, was busy, or was at fault itself: the same may work later."""


def known_user() -> str:
    """The user name in the credentials that name one (KAGGLE_USERNAME, kaggle.json), without asking Kaggle; "" if none does."""
    if os.environ.get("KAGGLE_USERNAME"):
        return os.environ["KAGGLE_USERNAME"]
    folders = [Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle"), Path.home() / ".config/kaggle"]
    for folder in folders:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads((folder / "kaggle.json").read_text(encoding="utf-8"))["username"])
    return ""


def check_user(user: str) -> str:
    """The name itself. Raises UserError for one that Kaggle would not have."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", user):
        raise UserError(
            f"--user {user}: is no name of Kaggle's; yours is the end of https://www.kaggle.com/NAME, your profile"
        )
    return user


def logged_in() -> KaggleApi:
    """The client with the user's credentials. Raises UserError without any, or if Kaggle cannot be reached to check them."""
    endpoint = os.environ.get(ENDPOINT_VARIABLE)
    if endpoint:
        from kagglesdk import kaggle_env

        # The client has a name for a server on this machine, and a fixed address for the name.
        os.environ["KAGGLE_API_ENVIRONMENT"] = "LOCALHOST"
        kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.LOCAL] = endpoint.rstrip("/")
    with asking("your credentials"), spoken():
        try:
            import kaggle

            if not kaggle.api._authenticated:  # what went wrong on import was swallowed there
                kaggle.api.authenticate()
        except SystemExit as error:
            raise UserError(NO_CREDENTIALS) from error
    if not user_of(kaggle.api):  # a variable that is set to nothing
        raise UserError(NO_CREDENTIALS)
    return kaggle.api


def user_of(api: KaggleApi) -> str:
    """The name of who is logged in."""
    return api.config_values.get(api.CONFIG_NAME_USER) or ""


@contextlib.contextmanager
def spoken() -> Iterator[io.StringIO]:
    """Give what the client prints in this block, which tells failures by it, instead of leaving it on standard output."""
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard):
        yield heard


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn the client's errors into UserError, or UnansweredError, which is one.

    what: was asked for, as in "the files of the competition"
    """
    # OSError is their base, and that of a full disk: so they are told apart inside.
    try:
        yield
    except ValueError as error:  # the client's own checks; also of requests, for an answer that is no JSON
        raise UserError(f"{what}: {error}") from error
    except OSError as error:
        requests = sys.modules.get("requests")
        if requests is None or not isinstance(error, requests.exceptions.RequestException):
            raise
        status = status_of(error)
        kind = UnansweredError if status in (0, 429) or status >= 500 else UserError
        raise kind(f"{what}: {_sentence(error, status)}") from error


def status_of(error: BaseException | None) -> int:
    """The HTTP status of the client's error; 0 if there was no answer."""
    response = getattr(error, "response", None)
    return 0 if response is None else int(response.status_code)


def _sentence(error: OSError, status: int) -> str:
    if status == 401:
        return NO_CREDENTIALS
    if status == 403:
        return f"Kaggle refuses it (403): accept the competition's rules at {RULES_URL}, and check whose it is"
    if status == 404:
        return "Kaggle does not have it (404): check the name"
    if status == 429:
        return "Kaggle has been asked too often (429): wait a few minutes and run the same command again"
    if status:
        return f"Kaggle answered {status} ({error}): run the same command again later"
    return f"Kaggle cannot be reached ({type(error).__name__}): check the network and run the same command again"
