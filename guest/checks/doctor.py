"""What does lab.py doctor find missing? Nothing that is required may be missing."""

import json

from guest.checks import LAB, No, answer, output


def check() -> str:
    """The names of all that is missing, each with the detail that doctor shows. Raises No for anything required."""
    found = json.loads(output([*LAB, "doctor", "--json"], allowed=(0, 1)))
    required = [one for one in found if one["required"] and not one["ok"]]
    if required:
        raise No("; ".join(f"{one['name']}: {one['detail']}" for one in required))
    lacking = [f"{one['name']} ({one['detail']})" for one in found if not one["ok"]]
    return f"ok; without {', '.join(lacking)}" if lacking else "ok"


if __name__ == "__main__":
    answer(check)
