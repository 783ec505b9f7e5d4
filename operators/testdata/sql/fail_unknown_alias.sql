-- fails: 3:8+8: unknown column `g.flight`: nothing is called `g`
--  hint: FROM names `f`
SELECT g.flight FROM flights f
