-- fails: 3:20+9: unknown relation `Flights`
--  hint: names keep their case only in quotes: write "flights"
SELECT flight FROM "Flights"
