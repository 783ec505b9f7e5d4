-- fails: 3:41+8: a join without equal keys pairs every row with every row of the table
--  hint: write `JOIN … ON a.key = b.key`; further conditions may follow with AND
SELECT f.flight, a.name FROM flights f, airlines a WHERE f.flight > 3
