#!/usr/bin/env python3
"""Makes the pile: one NetCDF file per month out of one file with all months.

    split.py PILE_FOLDER [ALL_MONTHS.nc]

Without a file it takes ostia_monthly.nc of the package iris-sample-data: monthly means of the
sea-surface temperature between 5°S and 5°N, measured April 2006 to September 2010 (OSTIA, Met
Office, Open Government Licence). Files are called sst-YEAR-MONTH.nc.
"""

import os
import sys

import netCDF4


def main(folder, source=None):
    if source is None:
        import iris_sample_data

        source = os.path.join(iris_sample_data.path, "ostia_monthly.nc")
    os.makedirs(folder, exist_ok=True)
    with netCDF4.Dataset(source) as every:
        time = every["time"]
        dates = netCDF4.num2date(time[:], time.units, getattr(time, "calendar", "standard"))
        for i, date in enumerate(dates):
            write_month(every, i, os.path.join(folder, f"sst-{date.year}-{date.month:02}.nc"))
    print(f"{len(dates)} files in {folder}")


def write_month(every, i, path):
    """Writes month number `i` to `path`, first under another name: no half file is ever seen."""
    with netCDF4.Dataset(path + ".part", "w") as one:
        one.title = "OSTIA monthly mean sea-surface temperature"
        one.source = "iris-sample-data, Open Government Licence"
        for name, size in (("time", 1), ("latitude", None), ("longitude", None)):
            one.createDimension(name, size or len(every.dimensions[name]))
        for name in ("time", "latitude", "longitude", "surface_temperature"):
            old = every[name]
            fill = getattr(old, "_FillValue", None)
            new = one.createVariable(name, old.dtype, old.dimensions, fill_value=fill)
            keep = ("units", "standard_name", "calendar", "axis")
            new.setncatts({a: old.getncattr(a) for a in keep if a in old.ncattrs()})
            new[:] = old[i : i + 1] if old.dimensions[0] == "time" else old[:]
    os.replace(path + ".part", path)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
