# SPDX-License-Identifier: Apache-2.0
"""Who may see what, and how often they may ask: tokens, private and gated repos, rate limits, and the Hub's errors."""

from __future__ import annotations

import time
from dataclasses import dataclass

from .http import Request, Response, json_response
from .repo import HubRepo


class HubError(Exception):
    """An error as the Hub reports it: a status, and code and message as headers and body."""

    def __init__(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    def response(self) -> Response:
        headers = {"X-Error-Message": self.message, **self.headers}
        if self.code is not None:
            headers["X-Error-Code"] = self.code
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
        return json_response({"error": self.message}, headers, self.status)


def repo_not_found(request: Request) -> HubError:
    """Missing and private repos look the same, and to a stranger both look like a missing login."""
    if request.user is None:
        return HubError(401, "RepoNotFound", "Invalid username or password.")
    return HubError(404, "RepoNotFound", "Repository not found")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")


def entry_not_found(commit: str, message: str = "Entry not found") -> HubError:
    return HubError(404, "EntryNotFound", message, {"X-Repo-Commit": commit})


class Access:
    """The tokens the Hub knows, by user."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}

    def identify(self, request: Request) -> str | None:
        """The user whose token came along; a wrong token is an error even where none is needed."""
        value = request.headers.get("authorization")
        if value is None:
            return None
        kind, _, token = value.partition(" ")
        if kind.lower() != "bearer" or token.strip() not in self.tokens:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return self.tokens[token.strip()]

    def may_know(self, request: Request, repo: HubRepo) -> bool:
        """Whether the repo exists as far as this caller can tell."""
        return not repo.private or request.user in repo.readers

    def check_files(self, request: Request, repo: HubRepo) -> None:
        """A gated repo can be looked at by everybody, but its files not be had."""
        if repo.disabled:
            raise HubError(403, None, "Access to this resource is disabled.")
        if not repo.gated or request.user in repo.readers:
            return
        restricted = f"Access to {repo.type} {repo.id} is restricted"
        if request.user is None:
            raise HubError(
                401,
                "GatedRepo",
                f"{restricted}. You must have access to it and be authenticated to access it. Please log in.",
            )
        raise HubError(
            403,
            "GatedRepo",
            f"{restricted} and you are not in the authorized list. Visit https://huggingface.co/{repo.id} to ask for access.",
        )


@dataclass
class Window:
    """A fixed window of `seconds` in which `quota` requests are free."""

    quota: int
    seconds: int
    enforced: bool = False
    used: int = 0
    started: float = 0.0

    def count(self) -> None:
        now = time.monotonic()
        if now - self.started >= self.seconds:
            self.started, self.used = now, 0
        self.used += 1

    @property
    def remaining(self) -> int:
        return max(0, self.quota - self.used)

    @property
    def reset(self) -> int:
        return max(0, int(self.started + self.seconds - time.monotonic() + 0.999))


class RateLimits:
    """One window for the API and one for the resolver, told in the headers of every answer."""

    def __init__(self) -> None:
        self.windows = {"api": Window(1000, 300), "resolvers": Window(5000, 300), "pages": Window(200, 300)}

    def set(self, name: str, quota: int, seconds: int) -> None:
        """From now on refuse what goes beyond the quota."""
        self.windows[name] = Window(quota, seconds, enforced=True)

    def take(self, name: str) -> tuple[dict[str, str], HubError | None]:
        """Count one request: the headers its answer carries, and the error if it is one too many."""
        window = self.windows[name]
        window.count()
        headers = {
            "RateLimit": f'"{name}";r={window.remaining};t={window.reset}',
            "RateLimit-Policy": f'"fixed window";"{name}";q={window.quota};w={window.seconds}',
        }
        if window.enforced and window.used > window.quota:
            return headers, HubError(429, None, "Too Many Requests: we had to rate limit you.")
        return headers, None
