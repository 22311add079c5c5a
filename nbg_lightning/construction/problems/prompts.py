"""Prompts for programs, calls and problem texts, and the frame of a problem."""

PROGRAM = """\
Write one Python function on this topic: {topic}

It must compute its result from its arguments alone, without input, output, randomness or the time, and use nothing but the \
standard library. Arguments and results are numbers, texts, lists, tuples or dictionaries. Answer with two code blocks: the \
first with the function, the second with at least {number} calls of it, one in a line, with different literal arguments that \
cover its special cases, such as:
```python
double(3)
double(-1)
```"""

CALLS = """\
Here is a Python function:
```python
{solution}
```
Write at least {number} calls of {name}, one in a line, in one code block, with different literal arguments that cover its \
special cases. Write no results."""

TEXT = """\
Here is a Python function, with some calls of it and what they give:
```python
{solution}
```
{examples}

Write a programming problem to which this function is the solution, for someone who sees neither the function nor how it works. \
Say what {name} is given, what it returns, and what happens in special cases, exactly enough that every right solution gives the \
same results. Write no code. Begin with the problem at once."""

TASK = """\
{text}

Write the Python function `{signature}`. It should pass these tests:
```python
{tests}
```
Answer with the whole program in one Python code block."""
