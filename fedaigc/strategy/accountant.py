"""What the noisy means of a run tell of one client: epsilon at a stated delta, over all its rounds.

A mean with noise is a Gaussian mechanism. With sensitivity S and noise of deviation s it has mu = S / s, and
means compose exactly (Dong et al. 2022, arXiv:1905.02383); epsilon follows from Balle and Wang (2018,
arXiv:1805.06530):

    mu^2 = sum_t mu_t^2,   delta = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu)

Adjacency: the number K of updates of a round is public, and the noise is scaled by it, so a client is never
added or removed. `epsilon` is for one client's updates against none at all in their places (zero-out: S = C /
K), `epsilon_replace_one` for any others in their places (S = 2 C / K, twice mu).

There is no amplification by sampling: clients are drawn by the run's seed, which all of them are sent, so who
is in a round is no secret. Every round counts for every client. Rounds that were run again after an
interruption count each time they were run.

Not covered: other runs on the same data, tuning among them, whose epsilons add up; numbers of examples,
losses, and who takes part; what floating-point noise gives away (Mironov 2012, doi:10.1145/2382196.2382264).
The server sees every update.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedaigc.errors import UserError

DELTA = 1e-5
# above it, a bound on what an attacker may learn is hardly one: Ponomareva et al. 2023, arXiv:2303.00654
MEANINGFUL_EPSILON = 10.0
ADJACENCY = "zero-out: the updates of one client, in all rounds, against none in their places"
SAMPLING = "no amplification: the draw of clients follows from the run's seed"


@dataclass(frozen=True)
class Release:
    """One noisy mean.

    clients: K. clipping_norm: C. noise_std: of each value of the mean. mu: of the Gaussian mechanism,
    zero-out; None without noise. delta: at which epsilon is wanted. no_epsilon: why mu bounds nothing; empty
    where it does.
    """

    clients: int
    clipping_norm: float
    noise_std: float
    mu: float | None
    delta: float
    no_epsilon: str = ""


def epsilon(mus: Sequence[float], delta: float) -> float:
    """Epsilon at `delta` of Gaussian mechanisms with these mu, one after the other; 0 of none."""
    # imported here: a device loads the strategies too, and has nothing to account
    from dp_accounting import get_epsilon_gaussian

    mu_squared = sum(mu**2 for mu in mus)
    return float(get_epsilon_gaussian(mu_squared**-0.5, delta)) if mu_squared else 0.0


@dataclass(frozen=True)
class Spent:
    """What the noisy means of a run tell of one client.

    Attributes:
        means: How many there were, and `repeated` of them of rounds that were run again.
        delta: At which epsilon holds: that of the last mean.
        no_epsilon: Why no epsilon holds; empty where one does. Both are None then.
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
    """What a run has spent so far; None when no round has noise.

    Args:
        releases: The means of its rounds.
        repeated: Those of rounds that were run and then run again.
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
    """An epsilon as text, to four digits or whole."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def told(dp: Spent | None) -> str:
    """The line of the command line about the noise of a run; empty where there was none."""
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
    """UserError for a delta that would allow to publish one client whole: from 1 / num_clients on."""
    if delta * num_clients >= 1:
        raise UserError(
            f"delta is {delta:g} for {num_clients} clients: expected less than 1 / {num_clients}; "
            "give a smaller `delta`"
        )
