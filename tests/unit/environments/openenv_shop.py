"""A server of the openenv package, run by an interpreter that has it: purchases by MCP tools, or a digit to guess by text.

python openenv_shop.py tools|text PORT SESSIONS
"""

import random
import sys

import uvicorn
from fastmcp import FastMCP
from openenv.core.env_server.http_server import create_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.mcp_environment import MCPEnvironment
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation
from openenv.core.env_server.types import Action, Observation, State


class Shop(MCPEnvironment):
    """Tools ``price`` and ``times``; prices are drawn by the seed of the reset."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        self.cost, self._state = 0, State(episode_id="shop", step_count=0)
        tools = FastMCP("shop")

        @tools.tool()
        def price(item: str) -> int:
            """What one of a thing costs."""
            if item == "soul":
                raise ValueError("souls are not for sale")
            return self.cost

        @tools.tool()
        def times(a: int, b: int) -> int:
            """The product of two numbers."""
            return a * b

        super().__init__(tools)

    def reset(self, seed=None, episode_id=None, **more):
        self.cost = random.Random(seed).randrange(2, 10)
        return Observation(done=False, reward=None)

    def _step_impl(self, action, timeout_s=None, **more):
        return Observation(done=False, reward=None, metadata={"error": f"no action {action}"})

    @property
    def state(self):
        return self._state


class Word(Action):
    message: str


class Said(Observation):
    text: str


class Guess(Environment):
    """A digit, by the seed of the reset; each guess has a reward, and the right one ends it."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self.secret, self._state = 0, State(episode_id="guess", step_count=0)

    def reset(self, seed=None, episode_id=None, **more):
        self.secret = random.Random(seed).randrange(10)
        return Said(text="Guess a digit.", done=False, reward=None)

    def step(self, action, timeout_s=None, **more):
        if action.message == "burn":
            raise RuntimeError("the shop burnt down")
        right = action.message.strip() == str(self.secret)
        return Said(text="yes" if right else "no", done=right, reward=1.0 if right else 0.25)

    @property
    def state(self):
        return self._state


KINDS = {"tools": (Shop, CallToolAction, CallToolObservation), "text": (Guess, Word, Said)}

if __name__ == "__main__":
    kind, port, sessions = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    uvicorn.run(
        create_app(*KINDS[kind], max_concurrent_envs=sessions), host="127.0.0.1", port=port, log_level="warning"
    )
