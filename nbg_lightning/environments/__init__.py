"""Multi-turn environments, the driver that plays their episodes, and the token ids to train on."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.environments.bfcl import BFCLEnvironment as BFCLEnvironment
    from nbg_lightning.environments.driver import EpisodeDriver as EpisodeDriver
    from nbg_lightning.environments.environment import End as End
    from nbg_lightning.environments.environment import Environment as Environment
    from nbg_lightning.environments.environment import EpisodeLimits as EpisodeLimits
    from nbg_lightning.environments.environment import ModelTurn as ModelTurn
    from nbg_lightning.environments.environment import Opening as Opening
    from nbg_lightning.environments.environment import Reply as Reply
    from nbg_lightning.environments.episode import Episode as Episode
    from nbg_lightning.environments.interpreter import PythonEnvironment as PythonEnvironment
    from nbg_lightning.environments.methods import MethodEnvironment as MethodEnvironment
    from nbg_lightning.environments.open_env import OpenEnvEnvironment as OpenEnvEnvironment
    from nbg_lightning.environments.play import play_episodes as play_episodes
    from nbg_lightning.environments.repository import RepositoryEnvironment as RepositoryEnvironment
    from nbg_lightning.environments.reward import EnvironmentReward as EnvironmentReward
    from nbg_lightning.environments.search import SearchEnvironment as SearchEnvironment
    from nbg_lightning.environments.segments import Segment as Segment
    from nbg_lightning.environments.tools import ToolEnvironment as ToolEnvironment
    from nbg_lightning.environments.verifiers import VerifiersEnvironment as VerifiersEnvironment
    from nbg_lightning.environments.verifiers import VerifiersQuestions as VerifiersQuestions
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "bfcl": ["BFCLEnvironment"],
            "driver": ["EpisodeDriver"],
            "environment": ["End", "Environment", "EpisodeLimits", "ModelTurn", "Opening", "Reply"],
            "episode": ["Episode"],
            "interpreter": ["PythonEnvironment"],
            "methods": ["MethodEnvironment"],
            "open_env": ["OpenEnvEnvironment"],
            "play": ["play_episodes"],
            "repository": ["RepositoryEnvironment"],
            "reward": ["EnvironmentReward"],
            "search": ["SearchEnvironment"],
            "segments": ["Segment"],
            "tools": ["ToolEnvironment"],
            "verifiers": ["VerifiersEnvironment", "VerifiersQuestions"],
        },
    )
