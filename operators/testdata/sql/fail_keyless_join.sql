-- fails: 3:45+8: a join without equal keys pairs every row with every row of the table
--  hint: write `JOIN … ON a.key = b.key`; further conditions may follow with AND
SELECT f.flight, a.name FROM flights f JOIN airlines a ON a.founded < f.flight
