-- fails: 3:8+4: unknown function `uper`
--  hint: did you mean `upper`?
SELECT uper(carrier) AS c FROM flights
