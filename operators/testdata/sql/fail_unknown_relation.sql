-- fails: 3:20+6: unknown relation `flight`
--  hint: did you mean `flights`?
SELECT flight FROM flight
