-- fails: 3:8+6: unknown column `a._key`
--  hint: there are `carrier`, `founded`, `name`
SELECT a._key AS k FROM flights f JOIN airlines a ON a.carrier = f.carrier
