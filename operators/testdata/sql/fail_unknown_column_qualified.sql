-- fails: 3:8+7: unknown column `f.flite`
--  hint: there are `body`, `cancelled`, `carrier`, `day`, `delay`, `flight`, `legs`, `local`, `plane`, `price`, `scheduled`, `seats`, `tags`
SELECT f.flite FROM flights f JOIN airlines a ON a.carrier = f.carrier
