-- fails: 5:16+6: unknown column `carier`
--  hint: did you mean `carrier`?
-- fails: 7:7+6: unknown column `dellay`
--  hint: did you mean `delay`?
SELECT flight, carier
FROM flights
WHERE dellay > 3
