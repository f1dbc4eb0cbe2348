"""Profiles for https://www.speedscope.app; the format is its file-format-schema.json."""

import json

from records.profile import Stack


def speedscope(profiles: dict[str, list[Stack]]) -> str:
    """The text of one file with all named profiles. It has all samples, idle ones too."""
    frames: dict[str, int] = {}
    shown = []
    for name, stacks in profiles.items():
        samples = [
            [frames.setdefault(frame, len(frames)) for frame in (stack.command, *stack.frames.split(";"))]
            for stack in stacks
        ]
        weights = [stack.samples for stack in stacks]
        shown.append(
            {
                "type": "sampled",
                "name": name,
                "unit": "none",
                "startValue": 0,
                "endValue": sum(weights),
                "samples": samples,
                "weights": weights,
            }
        )
    return json.dumps(
        {
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "exporter": "fastsocket-lab",
            "shared": {"frames": [{"name": name} for name in frames]},
            "profiles": shown,
        },
        separators=(",", ":"),
    )
