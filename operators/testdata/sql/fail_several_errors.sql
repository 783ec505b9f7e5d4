-- fails: 11:8+6: unknown column `carier`
--  hint: did you mean `carrier`?
-- fails: 11:16+5: the aggregate `count` needs state, which the sql operator does not keep yet
--  hint: filter and derive here, and aggregate what comes out with `logmill sql`
-- fails: 11:31+4: unknown function `uper`
--  hint: did you mean `upper`?
-- fails: 13:7+6: unknown column `dellay`
--  hint: did you mean `delay`?
-- fails: 14:1+5: GROUP BY needs state, which the sql operator does not keep yet
--  hint: filter and derive here, and aggregate what comes out with `logmill sql`
SELECT carier, count(*) AS n, uper(carrier) AS u
FROM flights
WHERE dellay > 3
GROUP BY carrier
