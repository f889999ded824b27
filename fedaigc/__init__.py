"""fedaigc: federated learning for collaborative diffusion, on Flower.

    import fedaigc as fa

gives everything that a researcher needs; no deeper import is part of the public interface.

Model and denoising:   load_pipeline, plan, start, unpack, Denoising, check, install, remove, export_lora,
                       import_lora
Homes and runs:        scenes, partition, Device, Reading, simulate, Stop, Run, read_record, records
Drawing together:      generate, Generation, disclose, transmit
Which prompts share:   sharing_distance, sharing_vectors, build_atlas, calibrate
Planning what waits:   sharing_tree, SharingTree, DamageCurve, Machine
Strategies:            Rule, AveragingRule, Traits, Update, Received, LocalResult, LocalWork, SharedState,
                       PastRound, strategy_names
Comparing them:        compare, Study
Errors:                Error
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedaigc.extras import check_libraries

if TYPE_CHECKING:
    from fedaigc.api.adapters import export_lora as export_lora
    from fedaigc.api.denoising import Denoising as Denoising
    from fedaigc.api.denoising import plan as plan
    from fedaigc.api.denoising import remove as remove
    from fedaigc.api.denoising import start as start
    from fedaigc.api.denoising import unpack as unpack
    from fedaigc.api.generation import Generation as Generation
    from fedaigc.api.generation import disclose as disclose
    from fedaigc.api.generation import generate as generate
    from fedaigc.api.own_data import partition as partition
    from fedaigc.api.planning import SharingTree as SharingTree
    from fedaigc.api.planning import sharing_tree as sharing_tree
    from fedaigc.api.radio import transmit as transmit
    from fedaigc.api.records import records as records
    from fedaigc.api.runs import Run as Run
    from fedaigc.api.runs import scenes as scenes
    from fedaigc.api.runs import simulate as simulate
    from fedaigc.api.sharing import build_atlas as build_atlas
    from fedaigc.api.sharing import calibrate as calibrate
    from fedaigc.api.sharing import sharing_distance as sharing_distance
    from fedaigc.api.sharing import sharing_vectors as sharing_vectors
    from fedaigc.api.studies import Study as Study
    from fedaigc.api.studies import compare as compare
    from fedaigc.data.pictures.reading import Reading as Reading
    from fedaigc.device.device import Device as Device
    from fedaigc.diffusion.adapters.lora_folder import import_lora as import_lora
    from fedaigc.diffusion.adapters.stages import install as install
    from fedaigc.diffusion.exactness import check as check
    from fedaigc.diffusion.loading import load_pipeline as load_pipeline
    from fedaigc.errors import Error as Error
    from fedaigc.federation.output.records import read_record as read_record
    from fedaigc.federation.stopping import Stop as Stop
    from fedaigc.planning.curve import DamageCurve as DamageCurve
    from fedaigc.planning.setting import Machine as Machine
    from fedaigc.strategy.past_round import PastRound as PastRound
    from fedaigc.strategy.rule import AveragingRule as AveragingRule
    from fedaigc.strategy.rule import LocalResult as LocalResult
    from fedaigc.strategy.rule import LocalWork as LocalWork
    from fedaigc.strategy.rule import Received as Received
    from fedaigc.strategy.rule import Rule as Rule
    from fedaigc.strategy.rule import SharedState as SharedState
    from fedaigc.strategy.rule import Traits as Traits
    from fedaigc.strategy.rule import Update as Update
    from fedaigc.strategy.sources import strategy_names as strategy_names

# where each public name lives: nothing is imported before it is asked for
_PUBLIC = {
    "Denoising": "api.denoising",
    "plan": "api.denoising",
    "remove": "api.denoising",
    "start": "api.denoising",
    "unpack": "api.denoising",
    "partition": "api.own_data",
    "Generation": "api.generation",
    "disclose": "api.generation",
    "generate": "api.generation",
    "SharingTree": "api.planning",
    "sharing_tree": "api.planning",
    "transmit": "api.radio",
    "records": "api.records",
    "Run": "api.runs",
    "scenes": "api.runs",
    "simulate": "api.runs",
    "build_atlas": "api.sharing",
    "calibrate": "api.sharing",
    "sharing_distance": "api.sharing",
    "sharing_vectors": "api.sharing",
    "Study": "api.studies",
    "compare": "api.studies",
    "Device": "device.device",
    "Reading": "data.pictures.reading",
    "export_lora": "api.adapters",
    "import_lora": "diffusion.adapters.lora_folder",
    "install": "diffusion.adapters.stages",
    "check": "diffusion.exactness",
    "load_pipeline": "diffusion.loading",
    "Error": "errors",
    "read_record": "federation.output.records",
    "Stop": "federation.stopping",
    "DamageCurve": "planning.curve",
    "Machine": "planning.setting",
    "PastRound": "strategy.past_round",
    "AveragingRule": "strategy.rule",
    "LocalResult": "strategy.rule",
    "LocalWork": "strategy.rule",
    "Received": "strategy.rule",
    "Rule": "strategy.rule",
    "SharedState": "strategy.rule",
    "Traits": "strategy.rule",
    "Update": "strategy.rule",
    "strategy_names": "strategy.sources",
}
__all__ = sorted([*_PUBLIC, "__version__"])

check_libraries()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # read late: it takes longer than the rest of `fedaigc --help`
        from importlib.metadata import version

        return version("fedaigc")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
