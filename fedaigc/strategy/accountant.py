"""What the noisy means of a run reveal of one client: epsilon at a stated delta, over all its rounds.

A noisy mean is a Gaussian mechanism. With sensitivity S and noise of standard deviation s it has mu = S / s.
Means compose exactly (Dong et al. 2022, arXiv:1905.02383), and epsilon follows from Balle and Wang (2018,
arXiv:1805.06530):

    mu^2 = sum_t mu_t^2,   delta = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu)

Adjacency: the number K of updates of a round is public, and the noise is scaled by it, so a client is never
added or removed. `epsilon` compares one client's updates with none at all in their places (zero-out: S = C /
K), `epsilon_replace_one` with any others in their places (S = 2 C / K, twice mu).

There is no amplification by sampling: clients are drawn by the run's seed, which in a simulation all of them
receive, so participation in a round is not secret. Every round counts for every client. Rounds that are
repeated after an interruption count each time they run.

Not covered: other runs on the same data, including tuning, whose epsilons add up; numbers of examples,
losses, and participation; and what floating-point noise reveals (Mironov 2012, doi:10.1145/2382196.2382264).
The server sees every update.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedaigc.errors import UserError

DELTA = 1e-5
# a larger epsilon hardly bounds what an attacker may learn: Ponomareva et al. 2023, arXiv:2303.00654
MEANINGFUL_EPSILON = 10.0
ADJACENCY = "zero-out: the updates of one client, in all rounds, against none in their places"
SAMPLING = "no amplification: the draw of clients follows from the run's seed"


@dataclass(frozen=True)
class Release:
    """One noisy mean.

    Attributes:
        clients: K, the number of updates.
        clipping_norm: C.
        noise_std: Standard deviation of the noise of each value of the mean.
        mu: mu of the Gaussian mechanism under zero-out adjacency; None without noise.
        delta: Delta at which epsilon is stated.
        no_epsilon: Why mu bounds nothing; empty if it does.
    """

    clients: int
    clipping_norm: float
    noise_std: float
    mu: float | None
    delta: float
    no_epsilon: str = ""


def epsilon(mus: Sequence[float], delta: float) -> float:
    """Return epsilon at `delta` of a sequence of Gaussian mechanisms; 0 for an empty sequence.

    Args:
        mus: mu of each mechanism.
        delta: Delta at which epsilon is stated.
    """
    # imported here: devices load the strategies as well, and have nothing to account
    from dp_accounting import get_epsilon_gaussian

    mu_squared = sum(mu**2 for mu in mus)
    return float(get_epsilon_gaussian(mu_squared**-0.5, delta)) if mu_squared else 0.0


@dataclass(frozen=True)
class Spent:
    """What the noisy means of a run reveal about one client.

    Attributes:
        means: Number of noisy means.
        repeated: How many of them belong to rounds that were run again.
        delta: Delta at which epsilon is stated, that of the last mean.
        no_epsilon: Why no epsilon holds, in which case both are None; empty if one holds.
        epsilon: For one client's updates against none in their places.
        epsilon_replace_one: For one client's updates against any others in their places.
    """

    means: int
    repeated: int
    delta: float
    no_epsilon: str
    epsilon: float | None
    epsilon_replace_one: float | None
    adjacency: str = ADJACENCY
    sampling: str = SAMPLING


def account(releases: Sequence[Release], repeated: Sequence[Release] = ()) -> Spent | None:
    """Return what a run has spent so far; None if no round has noise.

    Args:
        releases: Means of its rounds.
        repeated: Means of rounds that were run and then run again.
    """
    every = [*repeated, *releases]
    if not every:
        return None
    why = next((release.no_epsilon for release in every if release.no_epsilon), "")
    # a mean without noise says why it bounds nothing
    mus = [float(release.mu) for release in every if release.mu is not None]
    delta = every[-1].delta
    bounds = (None, None) if why else (epsilon(mus, delta), epsilon([2 * mu for mu in mus], delta))
    return Spent(len(every), len(repeated), delta, why, *bounds)


def shown(value: float) -> str:
    """Return an epsilon as text, with four digits or as a whole number."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def told(dp: Spent | None) -> str:
    """Return what the command line prints about the noise of a run; empty if there was none."""
    if dp is None:
        return ""
    if dp.epsilon is None or dp.epsilon_replace_one is None:
        return f"no epsilon holds for the noise of this run: {dp.no_epsilon}"
    again = f", {dp.repeated} of them of rounds that were run again" if dp.repeated else ""
    text = (
        f"epsilon {shown(dp.epsilon)} at delta {dp.delta:g} for one client's updates against none "
        f"({shown(dp.epsilon_replace_one)} against any others), over {dp.means} "
        f"noisy mean{'s' if dp.means > 1 else ''}{again}"
    )
    if dp.epsilon > MEANINGFUL_EPSILON:
        return f"{text}: above {MEANINGFUL_EPSILON:g} this protects nobody in practice"
    return f"differential privacy: {text}"


def check_delta(delta: float, num_clients: int) -> None:
    """Check that delta is below 1 / num_clients: a larger one permits publishing one client whole.

    Raises:
        UserError: If delta is too large.
    """
    if delta * num_clients >= 1:
        raise UserError(
            f"delta is {delta:g} for {num_clients} clients: expected less than 1 / {num_clients}; "
            "give a smaller `delta`"
        )
