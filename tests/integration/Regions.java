import java.util.List;
import org.apache.hadoop.hbase.HBaseConfiguration;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Admin;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.ConnectionFactory;
import org.apache.hadoop.hbase.client.RegionInfo;

/** Takes each region of a table offline for a while, places it again, and splits the first. Arguments: table, milliseconds offline. */
public class Regions {
    public static void main(String[] arguments) throws Exception {
        TableName table = TableName.valueOf(arguments[0]);
        try (Connection connection = ConnectionFactory.createConnection(HBaseConfiguration.create()); Admin admin = connection.getAdmin()) {
            List<RegionInfo> regions = admin.getRegions(table);
            for (RegionInfo region : regions) {
                admin.unassign(region.getRegionName());
                System.out.println("offline " + region.getEncodedName());
                Thread.sleep(Long.parseLong(arguments[1]));
                admin.assign(region.getRegionName());
            }
            admin.splitRegionAsync(regions.get(0).getRegionName(), new byte[] {1}).get();
            System.out.println("regions " + admin.getRegions(table).size());
        }
    }
}
