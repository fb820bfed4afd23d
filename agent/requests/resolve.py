"""Models of wants looked up in the catalog, within what one batch may cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.core.catalog import Catalog
from agent.core.limits import ERRORS_IN_FULL, NEAR_COMPARISONS
from agent.core.target import Target, make_target
from agent.core.want import WantedModel
from agent.errors import Code, WantdError


class Resolver:
    """Looks models up under one catalog and one policy, for one batch of wants, or for one want of many models.

    Near misses are looked for as long as `NEAR_COMPARISONS` last. After `ERRORS_IN_FULL` errors those of a code are one
    object, which says the same without the model's name: 400,000 names of no model took a GB. For worker threads.
    """

    def __init__(self, catalog: Catalog, policy: str | list[str], settings: str) -> None:
        self._catalog = catalog
        self._policy = policy
        self._settings = settings
        self._comparisons = NEAR_COMPARISONS
        self._errors = 0
        self._shared: dict[Code, WantdError] = {}

    def resolve(self, models: Sequence[WantedModel]) -> list[Target | WantdError]:
        """The target of each, or what is wrong with it."""
        return [self._target(model) for model in models]

    def resolve_all(self, wants: Iterable[Sequence[WantedModel]]) -> list[list[Target | WantdError]]:
        """The same for the models of several wants."""
        return [self.resolve(models) for models in wants]

    def _target(self, model: WantedModel) -> Target | WantdError:
        near = self._comparisons > 0
        try:
            return make_target(self._catalog, self._policy, model, settings=self._settings, near=near)
        except WantdError as error:
            if near and error.code is Code.MODEL_NOT_SUPPORTED:
                self._comparisons -= 2 * len(self._catalog.by_name)
            self._errors += 1
            if self._errors > ERRORS_IN_FULL:
                if error.code not in self._shared:
                    self._shared[error.code] = _nameless(error)
                return self._shared[error.code]
            if error.model == model.reference:
                error.model = model.reference  # one string, not two
            return error.with_traceback(None)  # which would keep the frames, and all that is in them


def _nameless(error: WantdError) -> WantdError:
    """For all further models of the batch that have this error."""
    messages = {Code.MODEL_NOT_SUPPORTED: "not in the catalog of supported models, or not allowed by policy.allow"}
    hint = f"see the first {ERRORS_IN_FULL} errors for what to do; request fewer models at a time to see all"
    return WantdError(error.code, messages.get(error.code, "not a model reference that can be used"), hint)
