"""Devices that move by random waypoint [Johnson96]: to a random place at a random speed, a pause, and on.

Source: D. B. Johnson and D. A. Maltz, "Dynamic Source Routing in Ad Hoc Wireless Networks", 1996.
"""

import numpy as np
from jaxtyping import Float


class Movement:
    """The way of each device in a square.

    Args:
        devices: Number of devices.
        side_m: Side of the square in metres.
        speeds_m_s: Lowest and highest speed; each way has one of its own, even in between. The lowest is above 0, or
            devices would come to rest.
        pause_s: Seconds at each place.
        until_s: Until when the ways go; later, devices rest.
        random: Generator to draw from.

    Raises:
        ValueError: If the lowest speed is not above 0, or above the highest.
    """

    def __init__(
        self,
        devices: int,
        side_m: float,
        speeds_m_s: tuple[float, float],
        pause_s: float,
        until_s: float,
        random: np.random.Generator,
    ) -> None:
        if not 0 < speeds_m_s[0] <= speeds_m_s[1]:
            raise ValueError(f"speeds {speeds_m_s}: expected a lowest one above 0 and a highest one")
        self._ways = [_way(side_m, speeds_m_s, pause_s, until_s, random) for _ in range(devices)]

    def at(self, time_s: float) -> Float[np.ndarray, "devices 2"]:
        """Return where the devices are at a time, in metres."""
        return np.array(
            [[np.interp(time_s, times, places[:, axis]) for axis in (0, 1)] for times, places in self._ways]
        )


def _way(
    side_m: float,
    speeds_m_s: tuple[float, float],
    pause_s: float,
    until_s: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return times of arrival and departure, and the places then."""
    times, places = [0.0], [random.uniform(0, side_m, 2)]
    while times[-1] < until_s:
        target = random.uniform(0, side_m, 2)
        took = float(np.linalg.norm(target - places[-1])) / random.uniform(*speeds_m_s)
        times += [times[-1] + took, times[-1] + took + pause_s]
        places += [target, target]
    return np.array(times), np.array(places)
