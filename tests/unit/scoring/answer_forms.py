r"""Forms of final answers: gold, what stands in the box, and whether it is right. `test_forms.py` checks every line.

Groups are made of rows ``gold | answer | answer ...``; a right row's answers are all right, a wrong row's all wrong.
`other_readers.py` asks lm-eval and math-verify about the same lines and writes where they differ to `forms_elsewhere.tsv`.
"""

RIGHT = r"""
5 | 5 | 5. | 5.0 | 5.00 | +5 | 05 | 10/2 | \frac{10}{2} | \frac{5}{1} | 2+3 | x=5 | x = 5 | 5 = x | \boxed{5} | $5$ | (5) | {5}
5 | 5\text{ dollars} | \$5 | 5 dollars | 5 \text{ cm}^2 | 5\,\text{cm} | 5 cm | 5\mathrm{cm} | 5^\circ | 5° | 5 degrees | 5 apples
5 | 5 times | 5 times as many | 5 \text{ times} | 5 km / h | 5 third graders | 5 more | 5 miles per hour | 5 dozen eggs
5000000 | 5 million | 5 \text{ million} | 5 million dollars | \$5 million | 5,000 thousand | 50 hundred thousand | 0.005 billion
5 | \text{5} | \textbf{5} | **5** | `5` | \mathbf{5} | \left(5\right) | \displaystyle 5 | 5\! | ５ | \{5\} | \text{5 apples} | =5
-5 | -5 | −5 | –5 | - 5 | -\$5 | \$-5 | -5.0 | -\frac{10}{2} | \frac{-10}{2} | \frac{10}{-2}
1/2 | \frac12 | \frac{1}{2} | \dfrac{1}{2} | \tfrac12 | 0.5 | .5 | 0.50 | 2/4 | ½ | \frac 12 | \frac1{2} | \frac{1}2 | 2^{-1}
1/2 | 50\%
7/2 | 3 1/2 | 3\frac12 | 3\frac{1}{2} | 3.5 | 3½ | \frac72 | 3 \frac{1}{2}
-7/2 | -3 1/2 | -3\frac{1}{2} | -3.5 | -\frac72
1000 | 1,000 | 1{,}000 | 1,\!000 | 1, \! 000 | 1 000 | 1\,000 | 10^3 | 1e3 | 1\times10^3 | 1.0 \cdot 10^{3} | 1 × 10³
1200 | 1,200 | 1 200 | 1.2e3 | 1.2\times 10^{3} | 12\cdot10^2 | 1,200.00 | \$1,200 | 1,200 \text{ dollars}
1000000 | 1,000,000 | 1,\!000,\!000 | 1 000 000 | 10^6 | 10^{6} | 1e6
28\% | 28 | 28\% | 28 percent | 28% | 28\text{ percent} | 0.28 | \frac{7}{25}
28 | 28\% | 28 percent
5 \text{ m} | 5 | 500 \text{ cm} | 5 \text{ meters} | 5 m | 0.005 \text{ km} | 5\mathrm{m}
12 \text{ cm}^2 | 12 | 12 cm^2 | 12\text{ square centimeters} | 12 \text{ sq cm} | 12\,\mathrm{cm}^2
\$2.50 | 2.50 | 2.5 | \$2.5 | 2.50 dollars | 250 \text{ cents} | 5/2
45^\circ | 45 | 45 degrees | 45\text{ degrees} | 45^{\circ} | 45°
1,2 | 2,1 | 1, 2 | \{1,2\} | \{2, 1\} | 1 \text{ and } 2 | 1 and 2 | x=1, x=2 | x = 2 \text{ or } x = 1 | 1;2 | \frac{2}{2}, 2
3,5,7 | 7,5,3 | \{3,5,7\} | 3, 5, \text{ and } 7 | 5, 7, 3
1\pm\sqrt{5} | 1+\sqrt5, 1-\sqrt5 | 1-\sqrt{5},1+\sqrt{5} | 1 \pm \sqrt 5 | \{1\pm\sqrt5\} | 1 ± √5
\{1,2,2\} | \{1,2\} | 2,1
(1,2) | (1,2) | (1, 2) | \left(1,2\right) | 1,2 | (1.0, \frac{4}{2}) | x=1, y=2 | (x,y)=(1,2)
[0,1) | [0,1) | \left[0,1\right) | [0, 1.0) | x \in [0,1)
(0,1) | ]0,1[ | (0,1)
(-\infty,2] | (-\infty, 2] | \left(-\infty,2\right] | (-∞, 2]
(-\infty,0)\cup(1,\infty) | (1,\infty)\cup(-\infty,0) | (-\infty,0) \cup (1,\infty)
(0,100) | (0,100) | (0, 100.0)
\emptyset | \varnothing | \{\} | ∅
\begin{pmatrix}1\\2\end{pmatrix} | \begin{bmatrix} 1 \\ 2 \end{bmatrix} | \begin{pmatrix}1.0\\\frac42\end{pmatrix}
\sqrt{2}/2 | \frac{\sqrt2}{2} | \frac{1}{\sqrt{2}} | \frac{\sqrt{8}}{4} | √2/2 | 2^{-1/2} | \sqrt{\frac12} | \sqrt{1/2}
2\sqrt3 | \sqrt{12} | 2 \sqrt{3} | \sqrt{3}\cdot 2 | √12 | 2√3 | 12^{1/2} | \frac{6}{\sqrt3}
\frac{1}{2^{99}} | 2^{-99} | \frac{1}{2^{99}} | (1/2)^{99}
\pi | π | \pi | pi
\frac{\pi}{2} | \frac{1}{2}\pi | \pi/2 | 0.5\pi | \frac12\pi
2+3i | 3i+2 | 2 + 3i | 2+3\cdot i
-1 | i^2 | -1 | e=-1
(x+1)^2 | x^2+2x+1 | (1+x)^2 | (x+1)(x+1) | 1+2x+x^2 | x^2 + 2x + 1
x^2-1 | (x-1)(x+1) | -1+x^2 | (x+1)(x-1)
\frac{1}{2-x} | -\frac{1}{x-2} | \frac{1}{2-x} | \frac{2}{4-2x}
y=2x+3 | 2x+3 | y = 3+2x | 2x + 3 = y | y-2x=3 | y-2x-3=0
x^2+y^2=13 | y^2+x^2=13 | x^2+y^2-13=0 | 2x^2+2y^2=26 | 13=x^2+y^2
204 | m+n=204 | \frac{408}{2} | 408/2 | 204\text{ cm} | x=200+4=204
2516_8 | 2516_8 | 2516 | 2516_{8} | 2516_{(8)}
3:1 | 3 | 6:2 | 3:1 | \frac31
\frac13 | 0.\overline{3} | \frac{1}{3} | 2/6 | ⅓
8 | 2^3 | 2**3 | 2³ | \sqrt{64} | \sqrt[3]{512} | 4! / 3
120 | 5! | \binom{10}{3} | 120
70,110 | 70,110 | 70, 110 | 70110 | 110, 70
\text{Evelyn} | Evelyn | evelyn | \textbf{Evelyn} | **Evelyn** | \text{ Evelyn }
\text{no solution} | no solution | No solution. | \text{No solution}
\text{(E)} | E | (E) | \text{E} | \textbf{(E)}
C | C | (C) | \text{C} | \mathrm{C}
\text{June 20} | June 20 | \text{June 20}
\text{4:30 p.m.} | 4:30 PM | 4:30 pm | \text{4:30 p.m.}
"""

WRONG = r"""
\frac35 | \frac25 | \frac15 | \frac5 | \frac53
2^\frac35 | 2^\frac25
5 | 5 to 6 | 5 or more | at most 5 | about 5 | 5 x | 5 times x | 5 minus x | 5 plus x | 5 less than x
5 | 5 not 6 | 5 is wrong | 5 \text{ is not it} | 5 squared | 5 halves | 5 mod 7 | 5 divided by x | 5 if x is 2 | 5 remainder 2
5 | 5 million | 5 hundred | \$5 billion | 5 \text{ thousand} | 5 boys, 6 girls | 5 apples and 6 pears | 5 feet 6 inches
5 | 6 | -5 | 50 | 5,6 | \text{none} | 5\% of x | 0.5 | 5x | x | 5.01 | 4.999999999 | 5+\epsilon | \{5,6\} | (5,5)
5 | 5>4 | 5 or 6 | 5 and 6
5 | 5^2 | 5! | \sqrt5 | 5i | 5\pi | 1/5 | five hundred | 5_ | x>5 | x \ge 5 | 2=5 | x=4=5 | x=6 | \infty | 5/0 | \{\}
12 | 1,2 | 1, 2 | (1,2) | 1 2 | 1.2 | 1;2
314 | 3,14 | 3.14 | 3, 14
1000 | 1,00 | 1,0000 | 1.000 | 10,00 | 1 00 | 10^{3.1} | 1,000,0 | 10,000
1/2 | 2 | 1,2 | 1/3 | 0.49 | 0.500001 | 1:3 | \frac{2}{1} | 12
7/2 | 31/2 | 3,1/2 | 3+1/3 | 7,2
\frac{11}{2} | 1 1/2 | 11 1/2 | 11,2
1/3 | 0.333 | 0.3333333333 | 0.33 | .3
\pi | 3.14 | 3.141592653589793 | \frac{22}{7}
\sqrt{2} | 1.414 | 1.41421356237 | 2 | \sqrt{3}
\frac{1}{2^{99}} | \frac{1}{2^{98}} | 0 | 2^{99} | 2^{-100}
\frac{\pi}{2^{98}} | \frac{\pi}{2^{99}} | 0
3 | 1e5000 | 3e5000 | 1e-5000 | 9^{9^{9^9}} | 10^{10^{10}} | 3.0000000000000000000001
28\% | 29 | 2.8 | 0.028 | 2800\%
5 \text{ m} | 5 \text{ cm} | 5 \text{ kg} | 5 \text{ m}^2 | 50 \text{ cm}
\$5 | 5 \text{ cents} | 5\text{ euros} | \$50
45^\circ | \frac{\pi}{4} | 54^\circ | 45 \text{ radians}
1,2 | 12 | 1 | 2 | 1,3 | 1,2,3 | 1,2,2 | [1,2) | (1,2] | 1.2 | x=1
3,5,7 | 357 | 3,5 | 3,5,8 | 3,7 | 3+5+7
-2,1 | -21 | 2,1 | -2,-1 | -1
1\pm\sqrt{5} | 1+\sqrt5 | 1-\sqrt5 | 1\pm\sqrt3
(1,2) | (2,1) | [1,2] | [1,2) | \{1,2\} | 1 | (1,2,3) | 2,1 | x=2,y=1 | (1,3)
[0,1) | (0,1) | [0,1] | (0,1] | [0,2) | 0,1 | [0,1
(-\infty,2] | (-\infty,2) | (\infty,2] | [-\infty,2] | (-\infty,-2]
(0,100) | 0100 | 100 | (0,1) | [0,100]
\begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}2\\1\end{pmatrix} | \begin{pmatrix}1&2\end{pmatrix} | (1,2) | 1,2
x^2-1 | x^2+1 | (x-1)^2 | x^2 | x-1 | (x-1)(x+2)
2x | 2 | x | x^2 | 2y | 2x+1
y=2x+3 | y=2x | y=3x+3 | 2x-3 | y=2
x^2+y^2=13 | 13 | x^2+y^2=12 | x^2-y^2=13
204 | \text{none} | 2041 | 204x | m+n=205 | 204=205
2516_8 | 2516_7 | 1358 | 2517_8 | 2516_{10}
3:1 | 1:3 | 3:2 | 1/3
\text{Evelyn} | Carl | 5 | \text{Evelyn and Carl} | x | nylEve
\text{(E)} | (D) | E,D | \text{F} | 5
\text{no solution} | 0 | x=1 | \text{one solution}
\text{4:30 p.m.} | 4:30 AM | 4:31 PM | 5:30 pm
\emptyset | 0 | \{0\} | 1
x=1,y=2 | y=1,x=2 | x=2,y=1
"""


def rows(block: str) -> list[tuple[str, str]]:
    """Every (gold, answer) of a block."""
    lines = (line.split(" | ") for line in block.strip().splitlines())
    return [(gold.strip(), answer.strip()) for gold, *answers in lines for answer in answers]


CASES = [(*row, True) for row in rows(RIGHT)] + [(*row, False) for row in rows(WRONG)]
