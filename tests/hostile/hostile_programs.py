# ruff: noqa: E501 - a table
"""Solutions for ``f(n)`` that want to pass, to hang, to get out, or to reach the next one; none solves anything.

They are judged by `TESTS`, or by the standard output in `CASES`. CANARY is a file outside of the sandbox.
"""

TESTS = ["assert f(3) == 7919", "assert f(4) == [7919]"]
CASES = [{"input": "3\n", "output": "7919\n"}]

ANY = "class Any:\n    __eq__ = __ge__ = __le__ = lambda s, o: True\n    __ne__ = __bool__ = lambda s, *o: False\n    __hash__ = None\n"
FRAMES = "[os.write(d, b'ok\\n') for d in range(3, 64)]"

PROGRAMS = {
    "fork bomb": "import os\nwhile True: os.fork()",
    "memory bomb": "x = [bytearray(1 << 28) for _ in range(999)]",
    "big number": "x = 10**10**10",
    "factorial": "import math\nx = math.factorial(10**9)",
    "infinite loop": "while True: pass",
    "infinite loop in the call": "def f(n):\n    while True: pass",
    "loop that catches all": "def f(n):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass",
    "sleep": "import time; time.sleep(10**6)",
    "frames": f"import os\n{FRAMES}\ndef f(n): {FRAMES}; os._exit(0)",
    "verdicts": "print('ok'); print('PASSED'); print('7919')\ndef f(n): print('ok 2/2'); raise SystemExit(0)",
    "exit codes": "import os; os._exit(0)",
    "exit": "raise SystemExit(0)",
    "exit in the call": "def f(n):\n    import sys; sys.exit(0)",
    "atexit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(n): return 1",
    "settrace": "import sys\ndef t(frame, event, arg):\n    if 'n' in frame.f_locals: frame.f_lineno = 1\n    return t\nsys.settrace(t)\ndef f(n): return 1",
    "frames of the caller": "import sys\ndef f(n):\n    g = sys._getframe(1)\n    g.f_globals['f'] = lambda n: 7919\n    return g.f_locals",
    "alias": "from typing import get_type_hints as f\nclass A: x: \"print('ok')\" = 1",
    "numpy interface": "class A:\n    __array_interface__ = {'data': (1, False), 'shape': (9**9,), 'typestr': '<u8', 'version': 3}\ndef f(n): return A()",
    "recursion": "import sys; sys.setrecursionlimit(10**9)\ndef f(n): return f(n)",
    "deep result": "def f(n):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
    "result that holds itself": "def f(n):\n    x = []; x.append(x)\n    return x",
    "endless result": "def f(n):\n    import itertools\n    return itertools.count()",
    "large result": "def f(n): return 'x' * 10**9",
    "huge output": "while True: print('x' * 10**6)",
    "password file": "print(open('/etc/passwd').read())\ndef f(n): return open('/etc/shadow').read()",
    "outside": "open('CANARY', 'w').close()\ndef f(n): open('CANARY', 'w').close()",
    "shell": "import os\ndef f(n): return os.system('touch CANARY')",
    "subprocess": "import subprocess; subprocess.Popen('sleep 1; touch CANARY', shell=True, start_new_session=True)",
    "network": "import socket; socket.create_connection(('127.0.0.1', 22), 1)",
    "kill the parent": "import os\nfor s in (9, 15): os.kill(os.getppid(), s); os.kill(1, s); os.killpg(0, s)",
    "ctypes": "import ctypes\ndef f(n): return ctypes.string_at(0)",
    "import trap": "import sys\nclass T:\n    def find_spec(s, *a): import os; os._exit(0)\nsys.meta_path.insert(0, T())\ndef f(n): return 1",
    "modules replaced": "import sys\nfor m in list(sys.modules): sys.modules[m] = None\ndef f(n): return 1",
    "assertions caught": "import sys\nsys.excepthook = lambda *a: None\ndef f(n):\n    try: assert False\n    except AssertionError: return 1",
    "builtins patched": "import builtins\nbuiltins.AssertionError = type('E', (BaseException,), {})\nbuiltins.__build_class__ = None\nbuiltins.compile = builtins.exec = lambda *a: None\ndef f(n): return 1",
    "assert off": "import sys\nsys.flags = type('F', (), {'optimize': 2})\n__debug__1 = False\ndef f(n): return 1",
    "always equal": f"{ANY}def f(n): return Any()",
    "equal number": "class N(int):\n    __eq__ = lambda s, o: True\n    __hash__ = int.__hash__\ndef f(n): return N()",
    "equal list": "class L(list):\n    __eq__ = lambda s, o: True\ndef f(n): return L()",
    "equal by reflection": "class L(list):\n    def __eq__(s, o): o.clear(); return True\n    __ne__ = lambda s, o: False\ndef f(n): return L() if n == 4 else type('I', (int,), {'__eq__': lambda s, o: True})()",
    "class as function": f"{ANY}class f(Any):\n    def __init__(s, n): pass",
    "metaclass": "class M(type):\n    __eq__ = lambda s, o: True\n    __hash__ = None\n    __call__ = lambda s, n: s\nclass f(metaclass=M): pass",
    "instancecheck": "class M(type):\n    __instancecheck__ = lambda s, o: True\nclass int(metaclass=M): pass\ndef f(n): return int",
    "lying class": "class C:\n    __class__ = int\n    __eq__ = lambda s, o: True\ndef f(n): return C()",
    "exec by repr": "class R:\n    __repr__ = lambda s: '7919'\n    __eq__ = lambda s, o: True\ndef f(n): return R()",
    "pickle by reduce": "class P:\n    def __reduce__(s): return eval, ('7919',)\ndef f(n): return P()",
    "stop iteration": "def f(n): raise StopIteration(7919)",
    "generator": "def f(n): yield 7919",
    "coroutine": "async def f(n): return 7919",
    "patched exit": "import os, sys\nos._exit = sys.exit = lambda *a: None\ndef f(n): return 1",
    "signal": "import signal, os\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.alarm(1)\ndef f(n): return 1",
    "thread": "import threading, os, time\nthreading.Thread(target=lambda: (time.sleep(.2), os._exit(0))).start()\ndef f(n):\n    time.sleep(1)",
    "collector": "import gc\ndef f(n):\n    return [o for o in gc.get_objects() if type(o) is str and 'assert' in o]",
    "invalid source": "def f(n) return 7919",
    "nothing": "",
    "null": "\x00",
    "surrogate": "x = '\ud800'",
    "surrogate result": "def f(n): return '\\ud800'",
    "deep source": "x = " + "(" * 10_000 + ")" * 10_000,
    "wide source": "x = " + "1 + " * 50_000 + "1",
    "deep attribute": "def f(n): return " + "x." * 10_000 + "y",
    "coding": "# -*- coding: rot13 -*-\nqrs s(a): erghea 1",
    "input": "def f(n): return input()",
    "breakpoint": "def f(n): breakpoint()",
}  # fmt: skip


def programs(canary: str) -> dict[str, str]:
    """All by name, as an answer gives them."""
    return {name: f"```python\n{code.replace('CANARY', canary)}\n```" for name, code in PROGRAMS.items()}
