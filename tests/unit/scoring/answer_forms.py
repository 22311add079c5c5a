# ruff: noqa: E501 - a table
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
120 | 5! | \binom{10}{3} | {10 \choose 3} | 10 \choose 3 | 120
70,110 | 70,110 | 70, 110 | 70110 | 110, 70
\text{Evelyn} | Evelyn | evelyn | \textbf{Evelyn} | **Evelyn** | \text{ Evelyn }
\text{no solution} | no solution | No solution. | \text{No solution}
\text{(E)} | E | (E) | \text{E} | \textbf{(E)}
C | C | (C) | \text{C} | \mathrm{C}
\text{June 20} | June 20 | \text{June 20}
\text{4:30 p.m.} | 4:30 PM | 4:30 pm | \text{4:30 p.m.}
5 | \fbox{5} | \mathrm{5} | \,5\, | 5\; | {{5}} | ((5)) | \bigl(5\bigr) | \left[5\right] | 5\,\text{units}
5 | 5\text{ units} | 5~\text{km} | 5\ \mathrm{kg}
5 | \text{ 5 } | \textit{5} | \texttt{5} | \textcolor{red}{5} | \color{blue}{5} | \color{red} 5
5 | \underline{\underline{5}} | \mathbf{x = 5} | \text{x = 5} | \$5.00 | 5.0000
5 | x\approx 5 | x = \frac{10}{2} = 5 | 2+3=5 | f(2)=5 | f(x) = 5 | AB = 5 | N=5 | n=5. | a_5 = 5 | x_1=5
5 | \boxed{\boxed{5}} | \Large 5 | \huge{5}
5 | 5\% | 5\ \% | 5 \text{ percent}
-5 | {-5} | (-5) | \left(-5\right) | -\left(5\right) | ﹣5 | － 5 | －5 | −5.0 | \text{-5} | -\!5 | - \frac{15}{3}
1/2 | 1\over 2 | {1 \over 2} | {1\over2} | \frac{ 1 }{ 2 } | \frac {1} {2} | \cfrac{1}{2} | \nicefrac{1}{2}
1/2 | \sfrac{1}{2} | 1 / 2 | 1/2 | 1÷2 | 1 \div 2 | (1)/(2) | (1/2) | \left(\frac12\right) | 5\cdot10^{-1} | 5e-1
1/2 | 5E-1 | 0.5 \text{ units} | 1⁄2 | P = \frac12 | P(A)=\frac12 | 50 percent
-1/2 | -\frac12 | \frac{-1}{2} | \frac{1}{-2} | -0.5 | -.5 | −½ | -1/2 | \frac{-1}2 | -\dfrac{1}{2}
3/2 | 1\frac{1}{2} | 1\,\frac{1}{2} | 1 \tfrac12 | 1~1/2 | 1\ 1/2 | 1½ | 1.5 | 1 ½ | 1 \frac{1}{2}\text{ hours}
3/2 | 1\dfrac12
1234567 | 1,234,567 | 1\,234\,567 | 1 234 567 | 1{,}234{,}567 | 1,\!234,\!567 | 1\;234\;567 | 1\:234\:567 | 1.234567e6
1234567 | 1.234567\times10^6 | 1.234567 \times 10^{6} | 1\thinspace234\thinspace567
0.001 | 10^{-3} | 1e-3 | 1E-03 | 1\times 10^{-3} | .001 | 0.1\% | \frac{1}{1000} | 1/1000 | \frac{1}{1,000}
0.001 | \frac{1}{10^3}
12000 | 12,000 | 12\text{k} | 12\times10^{3} | 1.2\times{10}^{4} | 12 thousand | 1.2\cdot 10^4 | 1.2*10^4 | 1.2 x 10^4
12000 | 1.2e+4 | 1.2E4 | 120 \times 100
100 | 10^{2} | 10² | 1e2 | 100\% | 1.0e2 | 100^{\circ}
25 | 25\text{ mph} | 25\text{ m/s} | 25\frac{\text{km}}{\text{h}} | 25\text{ cm}^2 | 25 sq. ft. | 25\ \text{ft}^{2}
25 | 25 cubic inches | 25 \text{ in}^3 | 25 m² | 25 m^2 | 25\,m^2 | 25 cm³ | 25 dollars per hour | 25¢ | EUR 25
25 | USD 25 | US$25 | $25 USD | ₹25 | Rs. 25 | Rs 25 | £25 | ¥25 | 25元 | 25 yuan | 25 people | 25 kg | 25kg | 25 N
25 | 25 J | 25 °C | 25^\circ\text{C} | 25 K | 25 L | 25 students
30^\circ | 30 | 30° | 30^{\circ} | 30 degrees | 30^\circ. | 30\degree | 30 deg | 30º | 30^{\circ}\text{ } | 30 ^\circ
30^\circ | 30\,^\circ | 30^o
x=5 | 5 | x=5 | x = 5 | 5=x | x=5.0 | $x=5$ | \{5\}
1,2,3 | 3,2,1 | 1, 2, and 3 | 1,2, and 3 | \{1,2,3\} | \left\{1,2,3\right\} | \lbrace 1,2,3\rbrace | x \in \{1,2,3\}
1,2,3 | x=1,2,3 | x=1, 2, \text{ or } 3 | x=1 \text{ or } x=2 \text{ or } x=3 | 1, 2, \& 3 | 1, 2 & 3 | 1;2;3
1,2,3 | 1\text{, }2\text{, }3 | 1,\,2,\,3 | 1,\quad 2,\quad 3 | x_1=1,x_2=2,x_3=3 | \text{1, 2, and 3} | [1,2,3]
1,2,3 | 1、2、3 | 1，2，3 | 1 \text{ and } 2 \text{ and } 3
\{1,2,3\} | 3,2,1 | \{3,2,1\} | \{1,2,3,3\}
-2,2 | \pm 2 | \pm2 | ±2 | x=\pm 2 | 2,-2 | x = 2, x=-2 | 2 \text{ and } -2 | +2,-2 | \{-2,2\} | -2 \text{ or } 2
(3,4) | (3,4) | (3, 4) | \left( 3, 4 \right) | (x,y)=(3,4) | x=3,y=4 | x=3\text{ and }y=4 | (3.0,4.0)
(3,4) | \langle 3,4\rangle | P=(3,4) | (3;4) | \left(3,\,4\right) | (3,~4) | \text{(3,4)} | 3, 4 | (\frac{6}{2}, 4)
(3,4),(5,6) | (5,6),(3,4) | (3,4), (5,6) | \{(3,4),(5,6)\} | (3,4) \text{ and } (5,6) | (x,y)=(3,4),(5,6)
(3,4),(5,6) | (3,4) \text{ or } (5,6)
[2,5] | [2,5] | \left[2, 5\right] | x\in[2,5] | 2\le x\le5 | 2 \leq x \leq 5 | [2;5]
(2,5) | 2<x<5 | x \in (2,5) | ]2;5[
[2,\infty) | x\ge 2 | x \geq 2 | [2,+\infty) | [2, \infty[ | 2\le x | x≥2
(-\infty,3) | x<3 | x < 3 | 3 > x | (-∞,3) | (-\infty, 3) | ]-\infty,3[
\frac{\sqrt{3}}{3} | \frac{1}{\sqrt3} | 1/\sqrt{3} | 3^{-1/2} | 3^{-\frac12} | \sqrt{\frac{1}{3}} | \frac{\sqrt{3}}3
\frac{\sqrt{3}}{3} | (1/3)\sqrt3 | \frac13\sqrt{3} | \sqrt{3}/3 | sqrt(3)/3 | \sqrt 3/3
1+\sqrt{2} | \sqrt2+1 | \sqrt{2}+1 | 1+√2 | 1 + 2^{1/2} | \frac{1}{\sqrt2-1} | \frac{2+2\sqrt2}{2} | 1+2^{0.5}
1+\sqrt{2} | 1+sqrt(2)
\frac{1+\sqrt5}{2} | \frac{\sqrt5+1}{2} | 0.5+0.5\sqrt5 | \frac12+\frac{\sqrt5}{2} | (1+\sqrt{5})/2
\frac{1+\sqrt5}{2} | \frac{\sqrt{5} + 1}{2} | \frac{2}{\sqrt5-1} | {1+\sqrt5\over2}
2^{10} | 1024 | 2**10 | 2^10 | 1,024 | 4^5 | 32^2 | 2^{10}=1024 | 1024=2^{10}
6\pi | 6\pi | 6π | 6 \pi | 6\cdot\pi | \pi\cdot6 | 6*\pi | 6\times\pi | 6pi | 6 pi | 6\pi\text{ cm}
6\pi | 6\pi \text{ square units} | 6 \pi cm^2 | \frac{12\pi}{2} | \frac{12}{2}\pi | 12\pi/2
2\sqrt{13} | \sqrt{52} | 2\sqrt{13}\text{ units} | 2 \cdot \sqrt{13} | 2\sqrt{13}\text{ cm} | 2*sqrt(13)
2\sqrt{13} | 2\times\sqrt{13}
\log_2 3 | \log_2 3
e^2 | e^2 | e^{2} | e^2. | \mathrm{e}^2
3-4i | 3-4i | 3 - 4i | -4i+3 | 3-4\mathrm{i} | 3 - 4 i | 3+(-4)i
x^2+3x+2 | (x+1)(x+2) | (x+2)(x+1) | x^{2}+3x+2 | 2+3x+x^2 | x^2 + 3x + 2 | x(x+3)+2 | x²+3x+2 | f(x)=x^2+3x+2
x^2+3x+2 | y=x^2+3x+2 | (x + 1)\cdot(x + 2) | x**2+3*x+2 | x*x+3*x+2 | \left(x+1\right)\left(x+2\right)
\frac{x+1}{x-1} | \frac{1+x}{x-1} | (x+1)/(x-1) | -\frac{x+1}{1-x} | 1+\frac{2}{x-1} | \frac{x^2-1}{(x-1)^2}
\frac{x+1}{x-1} | \frac{-(x+1)}{1-x}
10_{2} | 10_2 | 10_{2} | (10)_2 | 10 | 10_{(2)}
\text{Tuesday} | Tuesday | tuesday | Tuesday. | \text{Tuesday.} | \textrm{Tuesday} | \mathrm{Tuesday} | "Tuesday"
\text{Tuesday} | \textbf{Tuesday}
\text{Yes} | yes | Yes. | YES | \text{yes} | **Yes**
\text{True} | true | True
2:3 | 2:3 | 2 : 3 | \frac{2}{3} | 4:6 | 2/3 | 2∶3 | 2\colon3 | 2:3.
3.5 | 3.50 | 7/2 | 3\frac12 | 3 1/2
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{bmatrix}1&2\\3&4\end{bmatrix}
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \left(\begin{array}{cc}1&2\\3&4\end{array}\right)
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{pmatrix}1&2\\3&4\\\end{pmatrix}
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \left[\begin{matrix}1&2\\3&4\end{matrix}\right]
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{pmatrix}1&2\\ 3&\frac{8}{2}\end{pmatrix}
\begin{pmatrix}1&2\\3&4\end{pmatrix} | A=\begin{pmatrix}1&2\\3&4\end{pmatrix}
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{pmatrix}1&2\\[2pt]3&4\end{pmatrix}
0.\overline{6} | \frac23 | 2/3 | 0.\overline{6} | 0.\bar{6} | 0.\dot{6} | 0.(6) | 0.6\overline{6} | .\overline{6}
0 | 0 | 0.0 | -0 | 0\% | \$0 | 0/5
\sqrt[3]{4} | 4^{1/3} | \sqrt[3]{4} | 2^{2/3} | ∛4 | \sqrt[3]{ 4 } | 4^{\frac{1}{3}} | 2^{\frac23}
n! | n!
\frac{n(n+1)}{2} | \frac{n^2+n}{2} | n(n+1)/2 | \frac12 n(n+1) | \frac{(n+1)n}{2}
100\text{ km/h} | 100 | 100 km/h | 100\frac{\text{km}}{\text{h}} | 100 \text{ km per hour} | 100 kilometers per hour
100\text{ km/h} | 100 \text{ kilometres/hour} | 100 \text{ kph} | 100\text{ km h}^{-1} | 100000 \text{ m/h}
100\text{ km/h} | 100 \text{ kilometers an hour} | 100\,\mathrm{km\,h^{-1}} | 100\mathrm{km\,h^{-1}} | 100 km·h⁻¹
100\text{ km/h} | 100\ \mathrm{km\cdot h^{-1}} | 100\,\mathrm{km}\,\mathrm{h}^{-1} | 100\,\text{km}\cdot\text{h}^{-1}
100\text{ km/h} | 100\;\mathrm{km~h^{-1}} | 100\,\mathrm{\frac{km}{h}} | 100\,\mathrm{kmh^{-1}} | 100\,\rm{km/h} | 100\,{\rm km/h}
100\text{ km/h} | 100 km h^-1 | 100 km*h^{-1} | 100\,\operatorname{km/h} | v = 100\,\mathrm{km\,h^{-1}} | \text{100 km/h}
9.8 \text{ m/s}^2 | 9.8\,\mathrm{m\,s^{-2}} | 9.8\mathrm{m\,s^{-2}} | 9.8 m s^{-2} | 9.8 m·s⁻² | 9.8\ \mathrm{ms^{-2}}
9.8 \text{ m/s}^2 | 9.8\,\frac{\mathrm{m}}{\mathrm{s^2}} | 9.8\,\mathrm{m}\cdot\mathrm{s}^{-2} | 980\,\mathrm{cm\,s^{-2}}
10\text{ kg m/s} | 10\,\mathrm{kg\,m\,s^{-1}} | 10\,\mathrm{kg\cdot m/s} | 10\text{ kg}\cdot\text{m/s}
5\text{ N m} | 5\,\mathrm{N\,m} | 5\,\mathrm{N\cdot m} | 5\text{ N}\cdot\text{m} | 5\text{N}\cdot\text{m} | 5 N m | 5 N·m | 5
5\text{ N m} | 5\,\mathrm{N}\,\mathrm{m} | 5\,\mathrm{N}\cdot\mathrm{m} | 500\text{ N}\cdot\text{cm}
5\text{ N}\cdot\text{m} | 5 | 5 N m | 5\,\mathrm{N\,m} | x = 5\text{ N}\cdot\text{m}
5 N m | 5\text{ N}\cdot\text{m} | 5 N·m | 5Nm
8\text{ N/m} | 8\text{ N}/\text{m} | 8 N/m
4.2\,\mathrm{J\,g^{-1}\,K^{-1}} | 4.2\text{ J/g/K} | 4.2\,\mathrm{J/(g\cdot K)} | 4.2
50\text{ Hz} | 50\,\mathrm{s^{-1}} | 50\,\mathrm{Hz} | 50 s^{-1} | 50\,s^{-1} | 50 s⁻¹ | 50/s | 50 /s | 50\,\frac{1}{\text{s}}
50\,\mathrm{s^{-1}} | 50 | 50 s^{-1} | 50/s | \frac{50}{s} | f = 50 s^{-1}
50 s^{-1} | 50/s | 50 Hz | 50\,\mathrm{s^{-1}} | \frac{50}{s}
2 m g h | 2mgh | 2 \cdot m \cdot g \cdot h
25\,\mathrm{cm^2} | 25\mathrm{cm^2} | 25\text{cm}^2 | 0.0025\,\mathrm{m^{2}}
0.001 | 10⁻³ | 1 × 10⁻³ | 1×10⁻³
60\text{ mph} | 60 | 60\text{ miles per hour} | 60 mph | 60 \text{ mi/h} | 60 miles/hour | 60 \text{ mi/hr}
9.8 \text{ m/s}^2 | 9.8 | 9.8 \text{ m/s^2} | 9.8 m/s^2 | 9.8 m/s² | 9.8 \text{ meters per second per second}
9.8 \text{ m/s}^2 | 9.8\,\mathrm{m/s^2} | 9.8\,\text{m}/\text{s}^2 | 9.8\frac{\text{m}}{\text{s}^2} | 9.8 \text{ m s}^{-2}
2.7\text{ g/cm}^3 | 2.7 | 2.7 g/cm^3 | 2700 \text{ kg/m}^3 | 2.7\,\mathrm{g/cm^3} | 2.7 \text{ grams per cubic centimeter}
\$15\text{ per hour} | \$15 | 15 | 15 dollars | 15 \text{ dollars per hour} | \$15/\text{hour} | \$15.00
15 \text{ dollars per hour} | \$15 | 15 dollars per hour
5 \text{ hours per week} | 5 | 5 hours | 5 \text{ hours a week} | 5 hours per week
3 \text{ apples per day} | 3 | 3 apples | 3 \text{ apples a day}
40\text{ liters per minute} | 40 | 40 \text{ L/min} | 40 L/min | 2400 \text{ liters per hour}
(-\infty,\infty) | \mathbb{R} | x\in\mathbb{R} | ℝ | \R | x \in ℝ
\mathbb{R} | (-\infty,\infty) | \mathbb{R} | \mathbb R | (-∞,+∞)
\text{A and C} | A and C | \text{A and C}
\text{Tom and Ann} | Tom and Ann | \text{Tom and Ann}
3.5 | ٣٫٥ | ३.५ | ৩.৫ | ๓.๕
28\% | ٢٨٪ | 28٪
1234 | ١٬٢٣٤ | 1٬234
[1,2)\cup(3,4] | [1,2)\bigcup(3,4]
\mathbb{R}^2 | \mathbb{R}^2
42 | ٤٢ | ४२ | ４２ | 𝟒𝟐 | \text{\boxed{42}} | 42_{10} | \left.42\right.
5\text{ J} | 5\text{ N m} | 5 N·m | 5\text{ W s} | 5 W·s | 5\,\mathrm{kg\,m^2\,s^{-2}} | 5 J | 0.005\text{ kJ} | 5000\text{ mJ}
5\text{ J} | 5 joules | 5\text{ V C} | 5\text{ Pa m}^3 | 5\times10^7\text{ erg} | 5
3.6\text{ MJ} | 1\text{ kWh} | 1 kWh | 1\text{ kilowatt-hour} | 1\text{ kW h} | 1000\text{ W h} | 3600000 J | 3600\text{ kJ}
1\text{ kWh} | 3.6\text{ MJ} | 3.6 MJ | 3600000\text{ J} | 3.6\times 10^6\text{ J} | 1
100\text{ Pa} | 100\text{ N/m}^2 | 100\,\mathrm{N\,m^{-2}} | 1\text{ hPa} | 0.1\text{ kPa} | 1\text{ mbar} | 100\,\mathrm{kg\,m^{-1}\,s^{-2}}
1\text{ atm} | 101325\text{ Pa} | 101.325 kPa | 760\text{ mmHg} | 760\text{ torr} | 1.01325\text{ bar}
500\text{ mL} | 500\text{ cm}^3 | 0.5\text{ L} | 0.5 L | 500\text{ cc} | 500\text{ milliliters} | 5\text{ dL} | 500\text{ cubic centimeters}
1\text{ m}^3 | 1000\text{ L} | 1000 liters | 1\text{ kL} | 10^6\text{ cm}^3
5\text{ kW} | 5000\text{ W} | 5 kW | 5000\text{ J/s} | 5\text{ kJ/s} | 5\text{ kilowatts} | 0.005\text{ MW} | 0.005 MW
5\text{ mA} | 5 mA | 0.005\text{ A} | 5\text{ milliamps} | 5000\,\mu\text{A} | 5000 μA | 5000\text{ µA}
3\text{ ms} | 0.003 s | 3 ms | 3\text{ milliseconds} | 3000\,\mu\mathrm{s} | 3000\text{ μs}
600\text{ nm} | 600 nm | 0.6\,\mu\text{m} | 6\times10^{-7}\text{ m} | 600\text{ nanometers} | 6000\text{ Å} | 0.6 μm
50\,\Omega | 50\text{ ohms} | 50 Ω | 50\text{ V/A} | 0.05\text{ k}\Omega | 0.05\,\mathrm{k\Omega} | 50\Omega | 50\text{ Ω}
50\text{ ohms} | 50\,\Omega | 50\Omega | 50 Ω | 50
5 | 5\,\Omega | 5 kW | 5 MW | 5 mV | 5\,\mu\text{m} | 5 Hz | 5\text{ Pa} | 5 mol | 5\text{ eV} | 5 dB | 5 °F
4.2\,\mathrm{J/(g\cdot K)} | 4.2\,\mathrm{J\,g^{-1}\,^\circ C^{-1}} | 4200\text{ J/(kg K)} | 4.2\text{ kJ/kg K}
25^\circ\text{C} | 298.15\text{ K} | 25 °C | 25\text{ degrees Celsius} | 77^\circ\text{F} | 77 °F | 25^\circ | 25 | 298.15 K | 25 ℃ | 25\text{ C}
300\text{ K} | 26.85^\circ\text{C} | 300 K | 300\text{ kelvins} | 300
212^\circ\text{F} | 100^\circ\text{C} | 212\text{ degrees Fahrenheit} | 373.15\text{ K} | 212°F | 212
45^\circ | \frac{\pi}{4}\text{ rad} | \frac{\pi}{4}\text{ radians} | 45\text{ deg} | \frac18\text{ revolution}
\frac{\pi}{4}\text{ radians} | 45^\circ | 45\text{ degrees} | \frac{\pi}{4}
33\tfrac13\text{ rpm} | \frac{100}{3}\text{ revolutions per minute} | \frac{10\pi}{9}\text{ rad/s} | \frac{5}{9}\text{ revolutions per second}
9.8 \text{ m/s}^2 | 9.8\text{ meters per second squared} | 9.8\text{ N/kg} | 9.8 N/kg | 9.8 m/s/s | 9.8\text{ m/s/s}
6\text{ square feet} | 864\text{ square inches} | 6 sq ft | 6\text{ ft}^2 | \frac23\text{ square yards} | 6\text{ feet squared} | 6
1\text{ acre} | 43560\text{ square feet} | 4840\text{ square yards}
1\text{ gallon} | 231\text{ cubic inches} | 4\text{ quarts} | 8\text{ pints} | 16\text{ cups} | 128\text{ fluid ounces} | 3.785411784\text{ L}
3\text{ tablespoons} | 9\text{ teaspoons} | \frac{3}{16}\text{ cups}
2\text{ tons} | 4000\text{ pounds} | 4000 lbs | 64000\text{ ounces}
2\text{ tonnes} | 2000\text{ kg} | 2\text{ metric tons} | 2\text{ Mg}
30\text{ miles per gallon} | 30 mpg | 30\text{ mi/gal}
60\text{ mph} | 88\text{ feet per second} | 88 ft/s | 26.8224 m/s
5\text{ MB} | 5 MB | 40\text{ Mbit} | 5000\text{ KB} | 5\text{ megabytes} | 5000000\text{ bytes}
2\text{ KiB} | 2048\text{ bytes}
£5 | 5\text{ pounds} | 500\text{ pence} | 5\text{ pounds sterling} | GBP 5 | 5
5\text{ pounds} | £5 | 80\text{ ounces} | 5 lb
¥5 | 5 yuan | 5 yen | 5元 | 5円
\$15\text{ per hour} | 15\text{ dollars an hour} | 15 USD per hour
5 \text{ hours per week} | 300\text{ minutes} | 300\text{ minutes per week}
3\text{ years} | 36\text{ months} | \frac{3}{10}\text{ decades}
5\text{ m}, 7\text{ m} | 5, 7 | 5 m, 7 m | 500\text{ cm}, 700\text{ cm} | \{5\text{ m}, 7\text{ m}\} | 7 m, 5 m | 5 m and 7 m
(5\text{ m}, 3\text{ s}) | (5, 3) | (500\text{ cm}, 3\text{ s})
10\text{ kN} | 10000\text{ N} | 10 kN | 10\,\mathrm{kN} | 10\text{ kilonewtons}
5\text{ T} | 5\text{ Wb/m}^2 | 5 T | 5\text{ teslas}
2\,\mu\text{F} | 2\text{ microfarads} | 2\text{ μF} | 2000\text{ nF} | 2 μF
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
5 | 5.5 | 5,5 | 5:6 | 5-6 | 5–6 | 5 \text{ to } 6 | \approx 6 | 5/6 | 5\frac12 | 5 1/2 | 5^{\text{th}} | 5\sqrt2 | x^5
5 | x_5 | 5! = 120 | 5+ | 5? 6 | 5 ± 1 | 5\pm1 | <5 | x \neq 5 | not 5 | \text{not }5 | 5 \text{ or } 6 | 6 (5)
5 | 5 \text{ is incorrect} | 5\text{k} | -(-(-5)) | 5\cdot x | 5y | 5a | 5\times | \frac5 | 1e5 | 5e1 | 5 dozen and 1
5 | 5000\% | 5 0 | 5.5.5 | 5,000 | 5.000,00 | five thousand | fifty | 5\text{ million} | {5}{6} | 5\frac{0}{0}
-5 | 5 | --5 | 5- | - -5 | \pm5 | (-5)^2 | 0-(-5) | +5
1/2 | 1\2 | 1.2 | 0,5,0 | 1-2 | \frac{1}{2}x | 1/2/2 | 1/-2 | \frac{1}{3} | 1/2 1/2 | 1 1/2 | 1/2+ | .5.5 | 5 | 5\%
1/2 | 500\% | 0.5\% | ½% | \frac{1}{2}\%
3/2 | 11/2 | 1,1/2 | 1+1/3 | 1*1/2 | 1\cdot\frac12 | 2/3 | 1 1/3 | 1(1/2) | \frac{1}{2}1 | 1,5,0 | 1/2 1
1234567 | 123,4567 | 1,234,56 | 1234,567 | 1.234.567,1 | 12,345,67 | 1,234,567,000 | 1,234 | 1 234 56 | 1,234;567
1234567 | (1,234,567) | 0,234,567 | 1_2
0.001 | 0.01 | 0.0001 | 10^3 | 1e3 | 1\% | 0,001,0 | 001
25 | 25\text{ k} | 25x | 25 \text{ or so} | 25\text{ thousand} | 25\% \text{ of } 30 | 25-ish?? | 25! | 24.999
25 | 25 + C | 25/100 | 25 out of 100 | 25 of 30 | 25\pi \text{ cm} | 25:30 | 2 5 | 25.1 | 5^2+1 | {2}5x
30^\circ | 60^\circ | 30 \text{ rad} | \frac{\pi}{3} | 0.5 | 330^\circ | 30\%
x=5 | x=-5 | y=6 | x>5 | x=5,6 | x=5y | 2x=5 | x=5+x
1,2,3 | 1,2 | 123 | 6 | (1,2,4) | 1,2,3,4 | 1,2,... | 1,2,3,\ldots | 1-3 | 1..3 | 1,2,3 x | 1 2 3 | 1/2/3 | [1,3]
1,2,3 | 1,2,2 | \{1\},\{2,3\} | 321
-2,2 | 2 | -2 | \pm 4 | 0 | 2,2 | -2,-2 | (-2,2] | \mp 3 | \pm\sqrt2 | 4
(3,4) | (4,3) | 34 | 3.4 | [3,4] | (3,4] | (-3,4) | (3,4,0) | 4,3 | {3,4} x | y=3,x=4 | (3 4) | 3/4 | \{3,4\} | 3+4i
(3,4) | (3,4),(5,6)
(3,4),(5,6) | (3,4) | (4,3),(5,6) | (3,5),(4,6) | 3,4,5,6 | (3,4,5,6) | \{3,4,5,6\} | (3,6),(5,4)
[2,5] | (2,5) | [2,5) | 2<x<5 | [5,2] | 2,5 | \{2,5\} | 2\le x<5 | x=2,5 | 3
[2,\infty) | x>2 | x \le 2 | (2,\infty) | [2,\infty] | (-\infty,2] | 2 | x=2 | x\ge3 | \{2\}
(-\infty,3) | x\le3 | x>3 | (-\infty,3] | (3,\infty) | 3 | (-3,\infty)
\frac{\sqrt{3}}{3} | \sqrt3 | 0.577 | 0.57735026919 | \frac{\sqrt3}{2} | \frac{1}{3} | \frac{3}{\sqrt{3}}
\frac{\sqrt{3}}{3} | \sqrt{\frac{3}{3}}
1+\sqrt{2} | 2.414 | 2.41421356 | 1-\sqrt2 | \sqrt{3} | 1+2 | \sqrt2 | 1 \pm\sqrt2
6\pi | 18.85 | 18.849555921538759 | 6 | 6\pi^2 | 6p | 6\pi+1 | 6 i
3-4i | 3+4i | -3+4i | 4-3i | 3-4 | 3-4j+1 | 5 | (3,-4)
x^2+3x+2 | x^2+3x | x^2+3x+2=0 | x=-1,-2 | x^2+3y+2 | (x+1)(x-2) | x^2+3x+2+C | -1,-2 | x^2-3x+2 | y=x^2+3x+3
\frac{x+1}{x-1} | \frac{x-1}{x+1} | 1 | -1 | \frac{x+1}{1-x} | x+1 | x+1/x-1
10_{2} | 10_3 | 2 | 10_{10} | 11_2 | 100_2 | 10^2 | 102
\text{Tuesday} | Monday | \text{not Tuesday} | Tuesday or Wednesday | Tues | \text{Tuesday, Wednesday} | Wednesday | T
\text{Tuesday} | Tuesdays
\text{Yes} | no | \text{not yes} | yes and no
2:3 | 3:2 | 2:4 | 2.3 | 23 | 2,3 | 1:2:3 | 2:3:4
3.5 | 35 | 3,5,0 | 3.5.0 | 3, 5 | 5.3 | 3.05
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{pmatrix}1&3\\2&4\end{pmatrix} | 1,2,3,4
\begin{pmatrix}1&2\\3&4\end{pmatrix} | \begin{pmatrix}1&2&3&4\end{pmatrix} | \begin{pmatrix}1\\2\\3\\4\end{pmatrix}
\begin{pmatrix}1&2\\3&4\end{pmatrix} | (1,2,3,4) | -2 | \begin{vmatrix}1&2\\3&4\end{vmatrix}
0.\overline{6} | 0.6 | 0.66 | 0.667 | 0.\overline{3} | 6 | 0.6\% | 0.666666666666
0 | 1 | \infty | 0.1 | 1/0 | 0/0 | \emptyset | none | 10 | O | () | x
\infty | -\infty | 10^{99} | 1/0 | 0
100\text{ km/h} | 100 m/s | 100 \text{ km} | 100 \text{ h} | 100\text{ mph} | 100 \text{ km/min} | 100\frac{\text{m}}{\text{s}}
100\text{ km/h} | 100 km | 100 \text{ km/h}^2 | 100 \text{ km h} | 100\,\mathrm{m\,s^{-1}} | 100\,\mathrm{km\,h^{-2}}
100\text{ km/h} | 100\,\mathrm{km\,h} | 10\,\mathrm{km\,h^{-1}} | 100\,\mathrm{h^{-1}} | 100\,\mathrm{h\,km^{-1}}
9.8 \text{ m/s}^2 | 9.8\,\mathrm{m\,s^{-1}} | 9.8\,\mathrm{cm\,s^{-2}} | 9.8\,\mathrm{m^2\,s^{-2}} | 9.8 m s^{-1}
50\text{ Hz} | 50\,\mathrm{min^{-1}} | 50\,\mathrm{s} | 50 s | 50 s^{-2} | 50 m^{-1} | 50 x^{-1}
50\text{ Hz} | 5 s^{-1} | 50\,\frac{1}{\text{m}} | 50 s^{-1} + 1 | 50 s^{-1} m^{-1}
5\text{ N m} | 5 N | 5\text{ N}\cdot\text{s} | 5 N/m | 5\text{ N}/\text{m} | 5 N s | 5 x m | 50\text{ N}\cdot\text{m}
25\,\mathrm{cm^2} | 25\,\mathrm{cm^3} | 25\,\mathrm{m^2}
5 | 5\,\mathrm{km\,h^{-1}} - 3 | \mathrm{km\,h^{-1}} | 5\,\mathrm{m\,s^{-1}} + 1
0.001 | 10³ | 10⁻²
60\text{ mph} | 60 \text{ km/h} | 60 \text{ miles} | 60 miles per minute
9.8 \text{ m/s}^2 | 9.8 m/s | 9.8 \text{ km/s}^2 | 9.8 \text{ m}
2.7\text{ g/cm}^3 | 2.7 kg/m^3 | 2.7 g/cm^2 | 2.7 \text{ g}
\$15\text{ per hour} | \$16 | 15 \text{ euros}
(-\infty,\infty) | \mathbb{Q} | \mathbb{Z} | \mathbb{R}^2 | R
5 | 5 km - 3 | 5 km^{-1} - 3 | 5 m - 2 | 5 \text{ km}-3
3.5 | ٣٫٤ | ٣٥ | ٣,٥
42 | ٤٣ | ⁴² | ² | 42e9999999 | 42^{42^{42}} | 0x2A | NaN | \text{inf} | 07:00 | 42\\43
5\text{ J} | 5\text{ N} | 5 W | 5\text{ N/m} | 5\text{ kJ} | 5\text{ mJ} | 5\text{ cal} | 5\text{ W/s} | 5\text{ eV} | 5\text{ kWh} | 5\text{ N s} | 5 K
1\text{ kWh} | 3600\text{ J} | 1\text{ kW} | 1\text{ MWh} | 1\text{ kW/h} | 3.6\text{ kJ} | 3600000\text{ W} | 1\text{ Wh}
100\text{ Pa} | 100\text{ N} | 100\text{ N m}^2 | 100\text{ N/m} | 100\text{ kPa} | 100\text{ bar} | 100\text{ N/cm}^2 | 100\text{ psi}
500\text{ mL} | 500\text{ cm}^2 | 500\text{ L} | 500\text{ cm} | 500\text{ mm}^3 | 500\text{ m}^3 | 50\text{ cL}^2 | 500\text{ g} | 500 ML
5\text{ kW} | 5\text{ W} | 5 MW | 5\text{ mW} | 5\text{ kWh} | 5\text{ kJ} | 5\text{ kV} | 5 kN
5\text{ mA} | 5 MA | 5\text{ A} | 5\,\mu\text{A} | 5\text{ mV} | 5 mm | 5\text{ nA}
3\text{ ms} | 3 s | 3\text{ mm} | 3\,\mu\text{s} | 3\text{ m/s} | 3\text{ min}
600\text{ nm} | 600\text{ mm} | 600\,\mu\text{m} | 600\text{ nm}^2 | 600\text{ Nm} | 600 m
50\,\Omega | 50\text{ k}\Omega | 50 V | 50\text{ A/V} | 50\,\mathrm{M\Omega} | 50\text{ S}
25^\circ\text{C} | 25\text{ K} | 25^\circ\text{F} | 25 K | 25 °F | 298\text{ K} | -25^\circ\text{C} | 25\text{ J} | 25 m | 25\text{ degrees Fahrenheit}
25\text{ K} | 25^\circ\text{C} | 25 °F | 25^\circ | 298.15^\circ\text{C}
45^\circ | 45\text{ rad} | \frac{\pi}{4}^\circ | \frac{\pi}{2}\text{ rad} | 45\text{ K} | 45\text{ revolutions}
\frac{\pi}{4}\text{ radians} | \frac{\pi}{4}^\circ | 90^\circ | 45\text{ radians}
50\text{ Hz} | 50\text{ rad/s} | 50\text{ kHz} | 50\text{ rpm} | 50 MHz
9.8 \text{ m/s}^2 | 9.8\text{ meters squared per second} | 9.8\text{ N} | 9.8\text{ N/g} | 9.8 ft/s^2 | 9.8\text{ meters per second}
6\text{ square feet} | 6\text{ cubic feet} | 6\text{ square inches} | 6\text{ feet} | 6\text{ square yards}
1\text{ gallon} | 1\text{ quart} | 1\text{ L} | 3.785\text{ L} | 1\text{ lb}
2\text{ tons} | 2\text{ tonnes} | 2000\text{ pounds} | 2\text{ kg}
30\text{ miles per gallon} | 30\text{ km/L} | 30\text{ gallons per mile} | 30\text{ mph}
60\text{ mph} | 60\text{ ft/s} | 60 m/s | 60\text{ knots}
5\text{ MB} | 5 MiB | 5\text{ Mbit} | 5\text{ GB} | 5 bits | 5\text{ MW}
£5 | \$5 | €5 | 5\text{ kg} | 5\text{ dollars} | 5 pence
\$5 | £5 | ¥5 | ₹5 | 5 yuan | 5\text{ rupees} | 5\text{ won}
\$15\text{ per hour} | 15\text{ euros per hour} | 15\text{ hours per dollar} | 15\text{ cents per hour}
5 \text{ hours per week} | 5\text{ minutes per week} | 5\text{ days per week}
3\text{ years} | 3\text{ months} | 3\text{ days} | 30\text{ decades}
5\text{ m}, 7\text{ m} | 5\text{ cm}, 7\text{ cm} | 5\text{ s}, 7\text{ m} | 5 m, 7 s | 5 cm, 7 m
10\text{ kN} | 10 N | 10\text{ km} | 10\text{ MN} | 10\text{ kg}
2\,\mu\text{F} | 2\text{ mF} | 2\text{ F} | 2\text{ μC} | 2\,\mu\text{H}
4.2\,\mathrm{J/(g\cdot K)} | 4.2\,\mathrm{J/kg/K} | 4.2\text{ J/g} | 4.2\text{ J K/g} | 4.2\text{ kJ/g/K}
5 | 5 km squared x | 5 not m | 5 N + 3 | 5\,\Omega + 1 | 5 squared m
"""

ASKED_RIGHT = r"""
5 | |x| = 5 | \angle ABC = 5
1/2 | \Pr(A) = 0.5
1234567 | 1'234'567 | 1’234’567
30^\circ | \angle A = 30^\circ
\frac{\sqrt{3}}{3} | \tan\frac{\pi}{6}
1+\sqrt{2} | \sqrt{3+2\sqrt2}
\log_2 3 | \log_{2}3 | \log_2(3) | \log_{2}{3} | \frac{\ln 3}{\ln 2} | \frac{\log 3}{\log 2}
e^2 | \exp(2) | \exp 2
\frac{n(n+1)}{2} | \binom{n+1}{2}
"""

ASKED_WRONG = r"""
5 | \sim 5 | \le 5 | \geq 5 | ≠5 | |5|x
-5 | |-5|
x=5 | x^2=5
[2,5] | [2,5]\cup[6,7]
\frac{\sqrt{3}}{3} | \tan 60^\circ
\log_2 3 | \log_3 2 | 1.585 | \log 3 | \log_2 4 | 2^3
n! | n | (n-1)! | n!! | n!+1 | n^n
42 | \overline{42} | \input{/etc/passwd} | \def\x{\x}\x | 42\begin{cases}1\end{cases}
(-\infty,\infty) | \mathbb{R}\setminus\{0\}
\mathbb{R}^2 | \mathbb{R}
"""


def rows(block: str) -> list[tuple[str, str]]:
    """Every (gold, answer) of a block."""
    lines = (line.split(" | ") for line in block.strip().splitlines())
    return [(gold.strip(), answer.strip()) for gold, *answers in lines for answer in answers]


# Functions, absolute values and relations are left to math-verify.
ASKED = [(*row, True) for row in rows(ASKED_RIGHT)] + [(*row, False) for row in rows(ASKED_WRONG)]
CASES = [(*row, True) for row in rows(RIGHT)] + [(*row, False) for row in rows(WRONG)]
