"""All that the page shows, as one JSON object: prompts, images, totals and damaged files."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedaigc.deployment.agent.connection import connection
from fedaigc.deployment.page.disclosure import disclosed_words
from fedaigc.deployment.page.pictures import Pictures
from fedaigc.deployment.page.sums import Sums, profile_of, profile_words, sums
from fedaigc.device.home.budget import budget_files
from fedaigc.device.home.gallery import Begun, Finished, Gallery
from fedaigc.device.home.home import Home
from fedaigc.device.home.ledger_report import ledger_report
from fedaigc.device.home.prompts import PromptQueue, Task, TaskStatus
from fedaigc.device.shared_work import SharedWorkLog
from fedaigc.errors import DamagedFile

Status = Callable[[], Mapping[str, int | str | bool]]


class PageState:
    """Reads the state of a home, anew for every request.

    A file that cannot be read is listed as damaged and does not affect the others.

    Args:
        home: Home of the device.
        status: Returns the status of the agent, see `Agent.status`; its "busy" and "client" are used.
    """

    def __init__(self, home: Home, status: Status) -> None:
        self._home = home
        self._status = status
        self.pictures = Pictures()
        self.gallery = Gallery(home)
        self.queue = PromptQueue(home)
        self._shared_work = SharedWorkLog(home)

    def to_json(self) -> str:
        """Return the object as ASCII JSON: an unusual character in a file must not break the page."""
        return json.dumps(self._object(), allow_nan=False)

    def _object(self) -> dict[str, Any]:
        tasks, damaged = self.queue.readable()
        entries, damaged_entries = self.gallery.readable()
        work, damaged_work = self._shared_work.readable()
        profile, own, damaged_profile = profile_of(self._home)
        ledger, damaged_budget = self._ledger()
        status = self._status()
        finished = {entry.task_id: entry for entry in entries}
        number = {task.task_id: task.number for task in tasks}
        # images whose prompt cannot be read come last
        entries.sort(key=lambda entry: -number.get(entry.task_id, -1))
        files = [
            *damaged,
            *damaged_entries,
            *damaged_work,
            *damaged_profile,
            *(log.path for log in (self.queue.disclosures, self.queue.ledger) if log.damaged()),
            *damaged_budget,
            *self._damaged_pictures(entries),
        ]
        busy = bool(status["busy"])
        return {
            "client": status["client"],
            "busy": busy,
            "server": connection(self._home.root),
            "tasks": [self._task(task, finished.get(task.task_id), busy) for task in reversed(tasks)],
            "pictures": [self._picture(entry) for entry in entries],
            "sums": {
                **_sums(sums(entries, work, profile)),
                "source": profile_words(profile, own),
            },
            "ledger": ledger,
            "damaged": [str(path.relative_to(self._home.root)) for path in files],
        }

    def _ledger(self) -> tuple[dict[str, Any], list[Path]]:
        """Return what all prompts disclosed so far, and the file of the budget if it cannot be read."""
        try:
            report = ledger_report(self.queue)
        except DamagedFile:
            words = "The budget cannot be read: nothing is disclosed, and no prompt is drawn."
            return {"disclosures": None, "bits": None, "words": words}, budget_files(self._home)
        return {
            "disclosures": report.total.disclosures,
            "bits": round(report.total.bits, 1),
            "words": report.words,
        }, []

    def _damaged_pictures(self, entries: Sequence[Finished]) -> list[Path]:
        parts: list[tuple[str, int | None]] = []
        for entry in entries:
            parts += [(entry.task_id, None), *((entry.task_id, i) for i in range(len(entry.strip_steps)))]
        paths = [self.gallery.path(task_id, part) for task_id, part in parts]
        return [path for path in paths if self.pictures.version(path) is None]

    def _task(self, task: Task, entry: Finished | None, busy: bool) -> dict[str, Any]:
        begun = self.gallery.begun(task.task_id) if task.status is not TaskStatus.FINISHED else None
        state = task.status.value
        if begun is not None and (busy or task.status is TaskStatus.WAITING):
            state = "being drawn" if busy else "broken off, waiting"
        return {
            "id": task.task_id,
            "prompt": task.prompt,
            "state": state,
            "disclosed": disclosed_words(
                task,
                entry.received_step if entry else None,
                compared=self.queue.ledger.compared(task.task_id),
            ),
            "picture": entry is not None,
            "begun": self._way(begun) if begun else None,
        }

    def _picture(self, entry: Finished) -> dict[str, Any]:
        version = self.pictures.version(self.gallery.path(entry.task_id))
        return {"id": entry.task_id, "prompt": entry.prompt, "version": version, **self._way(entry)}

    def _way(self, entry: Finished | Begun) -> dict[str, Any]:
        """Return the strip: for each existing part, the step before which it shows the latents."""
        versions = [
            self.pictures.version(self.gallery.path(entry.task_id, part))
            for part in range(len(entry.strip_steps))
        ]
        return {
            "received_step": entry.received_step,
            "num_steps": entry.num_steps,
            "strip": [
                {"part": part, "step": step, "version": version}
                for part, (step, version) in enumerate(zip(entry.strip_steps, versions, strict=True))
                if version is not None
            ],
        }


def _sums(total: Sums) -> dict[str, int | float]:
    return {**asdict(total), "saved_steps": total.saved_steps, "saved_j": total.saved_j}
